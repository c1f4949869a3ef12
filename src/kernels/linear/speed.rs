//! `cargo test --release --lib speed -- --ignored --nocapture` prints GFLOP/s beside the peak of the same run.

use half::bf16;

use super::{Linear, LinearSpec, LowRankTerm};
use crate::kernels::matmul::Written;
use crate::kernels::pack::{Element, Pack, PackSpec, packed_len};
use crate::kernels::simd::{Isa, Vector, Vectorized};
use crate::kernels::testing::{Matrix, run, seconds};
use crate::kernels::{In, Kernel, Out};

/// Multiply-adds of registers only.
struct Peak(Isa);

const PEAK_STEPS: usize = 150_000;

impl Vectorized for &Peak {
    type Output = f32;

    #[inline(always)]
    fn run<V: Vector>(self) -> f32 {
        let factor = V::splat(std::hint::black_box(0.999));
        let mut sums = [V::splat(std::hint::black_box(0.5)); 12];
        for _ in 0..PEAK_STEPS {
            for sum in &mut sums {
                *sum = sum.mul_add(factor, factor);
            }
        }
        sums.into_iter().fold(V::zero(), V::add).sum()
    }
}

impl Kernel for Peak {
    fn parts(&self) -> usize {
        64
    }

    fn run(&self, _part: usize, _scratch: &mut [u8]) {
        std::hint::black_box(self.0.run(self));
    }
}

/// Dot products of pairs of bf16, of registers only.
struct PairsPeak(Isa);

impl Vectorized for &PairsPeak {
    type Output = f32;

    #[inline(always)]
    fn run<V: Vector>(self) -> f32 {
        let factors = [V::splat(std::hint::black_box(0.999)); 2];
        let pair = std::hint::black_box(0.5f32);
        let mut sums = [[V::splat(pair); 2]; 12];
        for _ in 0..PEAK_STEPS / 2 {
            for sums in &mut sums {
                // SAFETY: the pair can be read.
                unsafe { V::add_pairs::<2, 0, 0>(sums, &factors, &pair, 0) };
            }
        }
        sums.into_iter().flatten().fold(V::zero(), V::add).sum()
    }
}

impl Kernel for PairsPeak {
    fn parts(&self) -> usize {
        64
    }

    fn run(&self, _part: usize, _scratch: &mut [u8]) {
        std::hint::black_box(self.0.for_pairs().run(self));
    }
}

struct Lanes;

impl Vectorized for Lanes {
    type Output = usize;

    #[inline(always)]
    fn run<V: Vector>(self) -> usize {
        V::LANES
    }
}

/// Floating-point operations per second that multiply-adds of this type can reach.
pub fn peak<E: Element>(isa: Isa, threads: usize) -> f64 {
    let work = (64 * PEAK_STEPS * 12 * 2 * E::PAIR * isa.run(Lanes)) as f64;
    let kernel: &dyn Kernel = if E::PAIR == 1 { &Peak(isa) } else { &PairsPeak(isa) };
    work / seconds(kernel, threads, 1)
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
        let kernel = Linear::new(In::of(&x), In::of(&packed), low_rank, None, Out::of(&mut y), spec).unwrap();
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
