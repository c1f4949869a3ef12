//! `cargo test --release --lib speed -- --ignored --nocapture` prints GFLOP/s beside the peak of the same run.

use half::bf16;

use super::{Linear, LinearSpec, LowRankTerm, Product};
use crate::kernels::matmul::Written;
use crate::kernels::pack::{Element, Pack, PackSpec, packed_len};
use crate::kernels::simd::Isa;
use crate::kernels::simd::peak::{bf16_dot_peak, f32_peak};
use crate::kernels::testing::{Matrix, run, seconds};
use crate::kernels::{In, Out};

/// Floating-point operations per second that multiply-adds of this type can reach.
pub fn peak<E: Element>(isa: Isa, threads: usize) -> f64 {
    let pairs = if E::PAIR == 1 { None } else { bf16_dot_peak(isa, threads) };
    pairs.unwrap_or_else(|| f32_peak(isa, threads))
}

fn measure<E: Element + Written>(name: &str, [rows, inputs, outputs, rank]: [usize; 4], isa: Isa) {
    let x = Matrix::random(rows, inputs, 1).rounded::<E>();
    let weight = Matrix::random(outputs, inputs, 2);
    let [u, v] = [rows, outputs].map(|extent| Matrix::random(extent, rank, 3).rounded::<E>());
    let mut y = vec![E::narrow(0.0); rows * outputs];
    print!("{name} {isa:?} {rows:4} x {inputs:4} -> {outputs:5} rank {rank}:");
    for transpose_weight in [false, true] {
        let (n, k) = if transpose_weight { (inputs, outputs) } else { (outputs, inputs) };
        let mut packed = vec![E::narrow(0.0); packed_len::<E>(n, k)];
        run(&Pack::new(weight.span(), Out::of(&mut packed), PackSpec { outputs: n, inputs: k }).unwrap());
        let (u, v) = (In::of(&u), In::of(&v));
        let low_rank = LowRankTerm { u, v, rank, scale: 2.0, transpose: false };
        let spec = LinearSpec { rows, inputs, outputs, transpose_weight, isa };
        let low_rank = (rank > 0).then_some(low_rank);
        let product = Product::Written { residual: None, y: Out::of(&mut y) };
        let kernel = Linear::new(In::of(&x), In::of(&packed), low_rank, product, spec).unwrap();
        for threads in [1, 2] {
            let work = 2.0 * (rows * outputs * (inputs + rank)) as f64;
            let rate = work / seconds(&kernel, threads, (2e10 / work) as usize | 1);
            let share = 100.0 * rate / peak::<E>(isa, threads);
            print!(" {:6.1} GFLOP/s {share:3.0}%;", rate / 1e9);
        }
    }
    println!();
}

/// Forward with one thread and two, then back.
#[test]
#[ignore = "measures speed"]
fn speed_of_linear() {
    for shape in [
        [2048, 576, 576, 0],
        [2048, 576, 576, 8],
        [2048, 576, 192, 8],
        [2048, 192, 576, 8],
        [2048, 576, 1536, 8],
        [2048, 1536, 576, 8],
        [2048, 2048, 8192, 0],
        [2048, 8192, 2048, 0],
        [256, 576, 192, 8],
        [256, 576, 1536, 8],
        [256, 1536, 576, 8],
        [1, 576, 49152, 0],
    ] {
        let isa = Isa::detect();
        measure::<f32>("f32 ", shape, isa);
        measure::<bf16>("bf16", shape, isa);
    }
}
