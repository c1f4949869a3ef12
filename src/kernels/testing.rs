//! Memory for kernels under test: outputs and scratch start as NaN, parts run in any order.

use proptest::prelude::*;

use std::sync::Arc;
use std::time::Instant;

use super::body::FORCED;
use super::simd::Isa;
use super::{In, Kernel, Out};
use crate::executor::{Batch, ThreadPool};

/// Borrows a slice as a kernel's input.
pub fn input<T>(values: &[T]) -> In<T> {
    // SAFETY: tests keep the values until the kernel has run.
    unsafe { In::new(values.as_ptr(), values.len()) }
}

/// Borrows a slice as a kernel's output.
pub fn output<T>(values: &mut [T]) -> Out<T> {
    // SAFETY: tests keep the values until the kernel has run.
    unsafe { Out::new(values.as_mut_ptr(), values.len()) }
}

/// Runs all parts, forwards or, where `shuffle` is set, in an order made from it; scratch starts as NaN each time.
pub fn run(kernel: &dyn Kernel, shuffle: Option<u64>) {
    let mut scratch = vec![[f32::NAN; 16]; kernel.scratch_bytes().div_ceil(64) + 1];
    let mut order: Vec<usize> = (0..kernel.parts()).collect();
    if let Some(seed) = shuffle {
        order.sort_by_key(|&part| (part as u64 ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }
    for part in order {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut scratch);
        let offset = bytes.as_ptr().align_offset(64);
        kernel.run(part, &mut bytes[offset..offset + kernel.scratch_bytes()]);
        scratch.fill([f32::NAN; 16]);
    }
}

/// Runs with every instruction set, twice each in different orders, into NaN-filled outputs. The order must not change
/// a bit, the instruction set little. Returns the results of the best set.
pub fn outputs<const N: usize>(
    lengths: [usize; N],
    make: impl Fn([Out<f32>; N]) -> Box<dyn Kernel>,
) -> [Vec<f32>; N] {
    let run_with = |isa, shuffle| {
        let mut vectors = lengths.map(|n| vec![f32::NAN; n]);
        FORCED.set(Some(isa));
        run(&*make(vectors.each_mut().map(|v| output(v))), shuffle);
        FORCED.set(None);
        vectors
    };
    let mut best: Option<[Vec<f32>; N]> = None;
    for isa in Isa::available() {
        let first = run_with(isa, None);
        let second = run_with(isa, Some(0x5bd1));
        for (i, (a, b)) in first.iter().zip(&second).enumerate() {
            let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(a), bits(b), "the order of parts changed the result with {isa:?}");
            if let Some(best) = &best {
                let known =
                    |v: &[f32]| v.iter().map(|x| if x.is_nan() { 1e10 } else { *x }).collect::<Vec<_>>();
                let error = relative_error(&known(a), &widen(&known(&best[i])));
                assert!(error < 2e-5, "{isa:?} differs by {error:e}");
            }
        }
        best.get_or_insert(first);
    }
    best.unwrap()
}

/// Deterministic values in -1..1.
pub fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

pub fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| f64::from(x)).collect()
}

/// Largest difference relative to the largest expected magnitude, at least 0.1: inputs are in -1..1, and where terms of
/// that size cancel, their rounding is all that is left.
pub fn relative_error(actual: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(actual.len(), expected.len());
    let scale = expected.iter().fold(0.1f64, |m, x| m.max(x.abs()));
    actual.iter().zip(expected).fold(0.0, |worst, (a, e)| {
        let difference = (f64::from(*a) - e).abs() / scale;
        if difference > worst || difference.is_nan() { difference } else { worst }
    })
}

/// proptest's configuration for kernels: few cases, each of which covers many elements.
pub fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Prints the median speed over repeated runs, with one thread and with two; `work` is in operations or bytes.
pub fn report(name: &str, kernel: Box<dyn Kernel>, work: f64, unit: &str) {
    let batch = Arc::new(Batch::new(vec![kernel.into()]));
    let speeds = [1, 2].map(|threads| {
        let pool = ThreadPool::new(threads).unwrap();
        pool.run(&batch).unwrap();
        let mut seconds: Vec<f64> = (0..15)
            .map(|_| {
                let start = Instant::now();
                pool.run(&batch).unwrap();
                start.elapsed().as_secs_f64()
            })
            .collect();
        seconds.sort_by(f64::total_cmp);
        [seconds[7], seconds[0]].map(|seconds| work / seconds / 1e9)
    });
    let [[one, one_best], [two, two_best]] = speeds;
    println!("{name}: {one:.0} (best {one_best:.0}), two threads {two:.0} ({two_best:.0}) {unit}");
}
