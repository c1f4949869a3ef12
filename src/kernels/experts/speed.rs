//! `cargo test --release --lib speed -- --ignored --nocapture` prints GFLOP/s of the products of experts, beside those of
//! one product with as much arithmetic.

use half::bf16;

use super::{ExpertLinear, ExpertWeightGrad};
use crate::kernels::matmul::{Grouped, MatMul, MatMulSpec};
use crate::kernels::number::Float;
use crate::kernels::simd::Isa;
use crate::kernels::testing::{noise, seconds};
use crate::kernels::{In, Kernel, Out};

fn values<E: Float>(count: usize, seed: u64) -> Vec<E> {
    noise(count, seed).into_iter().map(|value| E::cast(value)).collect()
}

fn measure<E: Float>(name: &str, [rows, experts, inner, out]: [usize; 4])
where
    MatMul<E>: Grouped,
{
    let ids: Vec<u32> = (0..rows).map(|row| (row * experts / rows) as u32).collect();
    let (x, dy) = (values::<E>(rows * inner, 1), values::<E>(rows * out, 2));
    let weight = values::<E>(experts * inner * out, 3);
    let mut y = vec![E::from_f64(0.0); rows * out];
    let mut dweight = vec![E::from_f64(0.0); experts * inner * out];
    let (transpose_left, transpose_right, isa) = (false, true, Isa::detect());
    let spec = MatMulSpec { batch: 1, rows, inner, columns: out, transpose_left, transpose_right, isa };
    let one = In::of(&weight[..inner * out]);
    let ids = In::of(&ids);
    let kernels: [(&str, Box<dyn Kernel>); 3] = [
        ("one matrix", Box::new(MatMul::<E>::new(In::of(&x), one, Out::of(&mut y), spec).unwrap())),
        (
            "experts",
            Box::new(
                ExpertLinear::new([In::of(&x), In::of(&weight)], ids, Out::of(&mut y), [inner, out], false)
                    .unwrap(),
            ),
        ),
        (
            "gradient",
            Box::new(
                ExpertWeightGrad::new([In::of(&dy), In::of(&x)], ids, Out::of(&mut dweight), [out, inner])
                    .unwrap(),
            ),
        ),
    ];
    print!("{name} {rows:5} rows, {experts:3} x {inner:4} -> {out:4}:");
    let work = 2.0 * (rows * inner * out) as f64;
    for (what, kernel) in &kernels {
        for threads in [1, 2] {
            let rate = work / seconds(&**kernel, threads, (1e10 / work) as usize | 1);
            print!(" {what} {:6.1};", rate / 1e9);
        }
    }
    println!();
}

/// One thread, then two.
#[test]
#[ignore = "measures speed"]
fn speed_of_experts() {
    for shape in [
        [2048, 8, 1024, 768],
        [2048, 32, 1024, 768],
        [2048, 32, 768, 1024],
        [2048, 128, 1024, 768],
        [2048, 32, 1024, 8],
        [2048, 32, 8, 1024],
        [8, 32, 1024, 768],
    ] {
        measure::<f32>("f32 ", shape);
        measure::<bf16>("bf16", shape);
    }
}
