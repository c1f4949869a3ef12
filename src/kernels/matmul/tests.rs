use half::bf16;
use proptest::prelude::*;

use super::{MatMul, MatMulSpec, Written};
use crate::kernels::pack::Element;
use crate::kernels::simd::Isa;
use crate::kernels::testing::{Matrix, assert_close, run, seconds};
use crate::kernels::{In, Out};

/// Both sides as `E` stores them, and their product.
fn sides<E: Element>(spec: &MatMulSpec, seed: u64) -> (Vec<E>, Vec<E>, Vec<f64>) {
    let MatMulSpec { batch, rows, inner, columns, transpose_left, transpose_right, .. } = *spec;
    let (mut left, mut right, mut expected) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..batch as u64 {
        let mut a = Matrix::random(rows, inner, seed + i);
        let mut b = Matrix::random(inner, columns, seed + 1000 + i);
        a.rounded::<E>();
        b.rounded::<E>();
        expected.extend(a.times(&b));
        left.extend(if transpose_left { a.transposed() } else { a }.rounded::<E>());
        right.extend(if transpose_right { b.transposed() } else { b }.rounded::<E>());
    }
    (left, right, expected)
}

fn check_as<E: Element, P: Element + Written>(spec: MatMulSpec, seed: u64) {
    let (left, right, expected) = sides::<E>(&spec, seed);
    for isa in Isa::available() {
        let mut product = vec![P::narrow(f32::NAN); expected.len()];
        let spec = MatMulSpec { isa, ..spec };
        run(&MatMul::new(In::of(&left), In::of(&right), Out::of(&mut product), spec).unwrap());
        assert_close(&product, &expected, spec.inner, &format!("{spec:?}"));
    }
}

fn check(spec: MatMulSpec, seed: u64) {
    check_as::<f32, f32>(spec, seed);
    check_as::<bf16, f32>(spec, seed);
    check_as::<bf16, bf16>(spec, seed);
    let (left, right, expected) = sides::<f32>(&spec, seed);
    let [left, right] = [left, right].map(|side| side.into_iter().map(f64::from).collect::<Vec<_>>());
    let mut product = vec![f64::NAN; expected.len()];
    run(&MatMul::<f64>::new(In::of(&left), In::of(&right), Out::of(&mut product), spec).unwrap());
    assert_eq!(product, expected, "f64 {spec:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn agrees_with_f64_on_ragged_shapes(
        batch in 1usize..4,
        (rows, inner, columns) in (1usize..70, 0usize..70, 1usize..70),
        (transpose_left, transpose_right) in any::<(bool, bool)>(),
        seed in any::<u32>(),
    ) {
        let isa = Isa::Portable;
        check(MatMulSpec { batch, rows, inner, columns, transpose_left, transpose_right, isa }, u64::from(seed));
    }
}

#[test]
fn agrees_with_f64_where_k_is_cut() {
    for (rows, inner, columns) in
        [(8, 600, 100), (130, 300, 8), (60, 513, 64), (20, 257, 1024), (70, 1100, 9), (9, 1101, 70)]
    {
        for (transpose_left, transpose_right) in [(false, false), (false, true), (true, false), (true, true)]
        {
            let isa = Isa::Portable;
            check(MatMulSpec { batch: 1, rows, inner, columns, transpose_left, transpose_right, isa }, 3);
        }
    }
}

#[test]
fn wrong_lengths_are_refused() {
    let side = [0.0f32; 6];
    let mut product = [0.0f32; 5];
    let spec = MatMulSpec {
        batch: 1,
        rows: 2,
        inner: 3,
        columns: 2,
        transpose_left: false,
        transpose_right: false,
        isa: Isa::Portable,
    };
    assert!(MatMul::<f32>::new(In::of(&side), In::of(&side), Out::of(&mut product), spec).is_err());
}

fn measure<E: Element + Written>(name: &str, spec: MatMulSpec) {
    let MatMulSpec { rows, inner, columns, transpose_left, transpose_right, .. } = spec;
    let left = Matrix::random(rows, inner, 1).rounded::<E>();
    let right = Matrix::random(inner, columns, 2).rounded::<E>();
    let mut product = vec![E::narrow(0.0); rows * columns];
    let kernel = MatMul::<E>::new(In::of(&left), In::of(&right), Out::of(&mut product), spec).unwrap();
    print!("{name} {rows} x {inner} x {columns} transposed {transpose_left} {transpose_right}:");
    for threads in [1, 2] {
        let work = 2.0 * (rows * inner * columns) as f64;
        let bytes = (size_of::<E>() * (rows * inner + inner * columns + rows * columns)) as f64;
        let time = seconds(&kernel, threads, (3e9 / work) as usize | 1);
        print!(" {:.0} us, {:.1} GFLOP/s, {:.1} GB/s;", time * 1e6, work / time * 1e-9, bytes / time * 1e-9);
    }
    println!();
}

/// With one thread and two.
#[test]
#[ignore = "measures speed"]
fn speed_of_matmul() {
    for (rows, inner, columns, transpose_left, transpose_right) in [
        (2048, 576, 8, false, true),
        (2048, 576, 24, false, true),
        (2048, 1536, 8, false, true),
        (2048, 1536, 8, false, false),
        (8, 2048, 576, true, false),
        (24, 2048, 576, true, false),
        (8, 2048, 1536, true, false),
        (576, 2048, 8, true, false),
        (1536, 2048, 8, true, false),
        (1536, 2048, 576, true, false),
        (2048, 576, 1536, false, false),
        (2048, 576, 1536, false, true),
    ] {
        let isa = Isa::detect();
        let spec = MatMulSpec { batch: 1, rows, inner, columns, transpose_left, transpose_right, isa };
        measure::<f32>("f32 ", spec);
        measure::<bf16>("bf16", spec);
    }
}
