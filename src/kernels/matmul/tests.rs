use proptest::prelude::*;

use super::{MatMul, MatMulSpec};
use crate::kernels::simd::Isa;
use crate::kernels::testing::{Matrix, assert_close, run, seconds};
use crate::kernels::{In, Out};

fn check(spec: MatMulSpec, seed: u64) {
    let MatMulSpec { batch, rows, inner, columns, transpose_left, transpose_right, .. } = spec;
    let (mut left, mut right, mut expected) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..batch as u64 {
        let a = Matrix::random(rows, inner, seed + i);
        let b = Matrix::random(inner, columns, seed + 1000 + i);
        expected.extend(a.times(&b));
        left.extend(if transpose_left { a.transposed() } else { a }.values);
        right.extend(if transpose_right { b.transposed() } else { b }.values);
    }
    for isa in Isa::available() {
        let mut product = vec![f32::NAN; expected.len()];
        let spec = MatMulSpec { isa, ..spec };
        run(&MatMul::new(In::of(&left), In::of(&right), Out::of(&mut product), spec).unwrap());
        assert_close(&product, &expected, inner, &format!("{spec:?}"));
    }
    let [left, right] = [left, right].map(|side| side.into_iter().map(f64::from).collect::<Vec<_>>());
    let mut product = vec![f64::NAN; expected.len()];
    run(&MatMul::new(In::of(&left), In::of(&right), Out::of(&mut product), spec).unwrap());
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
    for (rows, inner, columns) in [(8, 600, 100), (130, 300, 8), (60, 513, 64), (20, 257, 1024)] {
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
    assert!(MatMul::new(In::of(&side), In::of(&side), Out::of(&mut product), spec).is_err());
}

#[test]
#[ignore = "measures speed"]
fn speed_of_matmul() {
    for (rows, inner, columns, transpose_left, transpose_right) in [
        (2048, 576, 8, false, true),
        (2048, 576, 24, false, true),
        (8, 2048, 576, true, false),
        (1536, 2048, 8, true, false),
        (1536, 2048, 576, true, false),
        (2048, 576, 1536, false, false),
        (2048, 576, 1536, false, true),
    ] {
        let left = Matrix::random(rows, inner, 1);
        let right = Matrix::random(inner, columns, 2);
        let mut product = vec![0.0; rows * columns];
        let isa = Isa::detect();
        let spec = MatMulSpec { batch: 1, rows, inner, columns, transpose_left, transpose_right, isa };
        let kernel = MatMul::new(left.span(), right.span(), Out::of(&mut product), spec).unwrap();
        for threads in [1, 2] {
            let work = 2.0 * (rows * inner * columns) as f64;
            let bytes = 4.0 * (rows * inner + inner * columns + rows * columns) as f64;
            let time = seconds(&kernel, threads, (3e9 / work) as usize | 1);
            println!(
                "{rows} x {inner} x {columns} transposed {transpose_left} {transpose_right}, {threads} threads: \
                 {:.0} us, {:.1} GFLOP/s, {:.1} GB/s",
                time * 1e6,
                work / time * 1e-9,
                bytes / time * 1e-9
            );
        }
    }
}
