//! `cargo test --release --lib speed -- --ignored --nocapture` prints GFLOP/s beside the peak of the same run.

use super::{Linear, LinearSpec, LowRankTerm};
use crate::kernels::pack::{Pack, PackSpec, packed_len};
use crate::kernels::simd::Isa;
use crate::kernels::simd::peak::f32_peak;
use crate::kernels::testing::{Matrix, run, seconds};
use crate::kernels::{In, Out};

#[test]
#[ignore = "measures speed"]
fn speed_of_linear() {
    let isas: Vec<Isa> = Isa::available().take(2).collect();
    for (rows, inputs, outputs, rank) in [
        (2048, 576, 576, 0),
        (2048, 576, 576, 8),
        (2048, 576, 192, 8),
        (2048, 576, 1536, 8),
        (2048, 1536, 576, 8),
        (2048, 2048, 8192, 0),
        (2048, 8192, 2048, 0),
        (2048, 576, 49152, 0),
        (256, 576, 1536, 8),
        (1, 576, 49152, 0),
    ] {
        let x = Matrix::random(rows, inputs, 1);
        let weight = Matrix::random(outputs, inputs, 2);
        let (u, v) = (Matrix::random(rows, rank, 3), Matrix::random(outputs, rank, 4));
        let mut packed = vec![0.0; packed_len::<f32>(outputs, inputs)];
        let pack = PackSpec { outputs, inputs, transpose_weight: false };
        run(&Pack::new(weight.span(), Out::of(&mut packed), pack).unwrap());
        let mut y = vec![0.0; rows * outputs];
        for &isa in &isas {
            let low_rank = LowRankTerm { u: u.span(), v: v.span(), rank, scale: 2.0, transpose: false };
            let spec = LinearSpec { rows, inputs, outputs, isa };
            let low_rank = (rank > 0).then_some(low_rank);
            let kernel =
                Linear::new(x.span(), In::of(&packed), low_rank, None, Out::of(&mut y), spec).unwrap();
            for threads in [1, 2] {
                let peak = f32_peak(isa, threads);
                let work = 2.0 * (rows * outputs * (inputs + rank)) as f64;
                let rate = work / seconds(&kernel, threads, (4e10 / work) as usize | 1);
                println!(
                    "{rows:5} x {inputs:4} -> {outputs:5} rank {rank} {isa:?} {threads} threads: {:6.1} GFLOP/s, {:3.0}% of peak",
                    rate / 1e9,
                    100.0 * rate / peak
                );
            }
        }
    }
}
