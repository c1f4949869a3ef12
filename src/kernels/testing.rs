//! What kernel tests share: memory and numbers for kernels, references in f64, runs on poisoned scratch memory in any
//! order, and timing.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::body::FORCED;
use super::pack::Element;
use super::simd::Isa;
use super::{In, Kernel, Out};

impl<T> In<T> {
    /// The caller keeps the values alive and unchanged.
    pub fn of(values: &[T]) -> Self {
        // SAFETY: tests keep the slice while the kernel lives.
        unsafe { Self::new(values.as_ptr(), values.len()) }
    }
}

impl<T> Out<T> {
    /// The caller keeps the values alive and does not look at them while kernels run.
    pub fn of(values: &mut [T]) -> Self {
        // SAFETY: tests keep the slice while the kernel lives.
        unsafe { Self::new(values.as_mut_ptr(), values.len()) }
    }
}

/// Uniform in -1..1 (splitmix64).
pub fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(n).collect()
}

/// Row-major f32.
pub struct Matrix {
    pub rows: usize,
    pub columns: usize,
    pub values: Vec<f32>,
}

impl Matrix {
    pub fn random(rows: usize, columns: usize, seed: u64) -> Self {
        Self { rows, columns, values: noise(rows * columns, seed) }
    }

    pub fn span(&self) -> In<f32> {
        In::of(&self.values)
    }

    /// The values as another type stores them; `self` takes on their rounding.
    pub fn rounded<E: Element>(&mut self) -> Vec<E> {
        let stored: Vec<E> = self.values.iter().map(|&value| E::narrow(value)).collect();
        self.values = stored.iter().map(|value| value.widen()).collect();
        stored
    }

    pub fn transposed(&self) -> Self {
        let Self { rows, columns, values } = self;
        let values = (0..rows * columns).map(|i| values[i % rows * columns + i / rows]).collect();
        Self { rows: *columns, columns: *rows, values }
    }

    /// self [m, k] times other [k, n] in f64.
    pub fn times(&self, other: &Self) -> Vec<f64> {
        assert_eq!(self.columns, other.rows);
        let mut product = vec![0.0; self.rows * other.columns];
        for i in 0..self.rows {
            for k in 0..self.columns {
                let left = f64::from(self.values[i * self.columns + k]);
                for j in 0..other.columns {
                    product[i * other.columns + j] += left * f64::from(other.values[k * other.columns + j]);
                }
            }
        }
        product
    }
}

/// Compares sums of `terms` products of numbers below 1, rounded to `E`.
pub fn assert_close<E: Element>(found: &[E], expected: &[f64], terms: usize, what: &str) {
    // Half a unit in the last place of bf16, and as much again for terms that were rounded too.
    let rounding = if E::PAIR == 1 { 0.0 } else { 2.0 / 256.0 };
    for (i, (y, exact)) in found.iter().zip(expected).enumerate() {
        let tolerance = (rounding + 6e-8 * (terms as f64 + 16.0)) * exact.abs().max(1.0);
        let y = f64::from(y.widen());
        assert!((y - exact).abs() <= tolerance, "{what}: element {i} is {y}, not {exact}");
    }
    assert_eq!(found.len(), expected.len(), "{what}");
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

/// Scratch memory full of NaN, on a 64-byte boundary.
pub fn poisoned_scratch(kernel: &dyn Kernel) -> Vec<[u32; 16]> {
    vec![[u32::MAX; 16]; kernel.scratch_bytes().div_ceil(64)]
}

fn bytes(scratch: &mut [[u32; 16]]) -> &mut [u8] {
    // SAFETY: the bytes of the words.
    unsafe { std::slice::from_raw_parts_mut(scratch.as_mut_ptr().cast(), size_of_val(scratch)) }
}

fn run_parts(kernel: &dyn Kernel, order: impl Iterator<Item = usize>) {
    for part in order {
        kernel.run(part, bytes(&mut poisoned_scratch(kernel)));
    }
}

/// Runs the parts last to first, each on poisoned scratch memory.
pub fn run(kernel: &dyn Kernel) {
    run_parts(kernel, (0..kernel.parts()).rev());
}

/// Runs the parts in an order that looks random.
fn run_shuffled(kernel: &dyn Kernel) {
    let mut order: Vec<usize> = (0..kernel.parts()).collect();
    order.sort_by_key(|&part| (part as u64 ^ 0x5bd1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    run_parts(kernel, order.into_iter());
}

/// Runs with every instruction set, twice each in different orders, into NaN-filled outputs. The order must not change
/// a bit, the instruction set little. Returns the results of the best set.
pub fn outputs<const N: usize>(
    lengths: [usize; N],
    make: impl Fn([Out<f32>; N]) -> Box<dyn Kernel>,
) -> [Vec<f32>; N] {
    let run_with = |isa, run: fn(&dyn Kernel)| {
        let mut vectors = lengths.map(|n| vec![f32::NAN; n]);
        FORCED.set(Some(isa));
        run(&*make(vectors.each_mut().map(|v| Out::of(v))));
        FORCED.set(None);
        vectors
    };
    let mut best: Option<[Vec<f32>; N]> = None;
    for isa in Isa::available() {
        let first = run_with(isa, run);
        let second = run_with(isa, run_shuffled);
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

/// proptest's configuration for kernels: few cases, each of which covers many elements.
pub fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Nanoseconds that this thread has spent on a core: what other processes take does not count.
fn thread_nanoseconds() -> f64 {
    let line = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    line.split(' ').next().unwrap().parse().unwrap()
}

/// Core time per thread of one run of the kernel, in seconds, over so many runs; threads take the parts in order.
pub fn seconds(kernel: &dyn Kernel, threads: usize, repeats: usize) -> f64 {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut scratch = poisoned_scratch(kernel);
        let start = thread_nanoseconds();
        loop {
            let part = next.fetch_add(1, Ordering::Relaxed);
            if part >= kernel.parts() * repeats {
                std::thread::sleep(std::time::Duration::from_millis(1));
                return thread_nanoseconds() - start;
            }
            kernel.run(part % kernel.parts(), bytes(&mut scratch));
        }
    };
    let total: f64 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    total * 1e-9 / (threads * repeats) as f64
}

/// Prints the best speed of several, by core time, with one thread and with two; `work` is in operations or bytes.
pub fn report(name: &str, kernel: &dyn Kernel, work: f64, unit: &str) {
    let [one, two] = [1, 2].map(|threads| {
        let best = (0..5).map(|_| seconds(kernel, threads, 5)).fold(f64::INFINITY, f64::min);
        work / best * 1e-9
    });
    println!("{name}: {one:.0}, two threads {two:.0} {unit}");
}
