//! What kernel tests share: matrices, f64 products, running all parts on poisoned scratch memory.

use std::sync::atomic::{AtomicUsize, Ordering};

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

/// Row-major f32.
pub struct Matrix {
    pub rows: usize,
    pub columns: usize,
    pub values: Vec<f32>,
}

impl Matrix {
    /// Uniform in -1..1 (splitmix64).
    pub fn random(rows: usize, columns: usize, seed: u64) -> Self {
        let mut state = seed;
        let next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 40) as f32 / (1u32 << 23) as f32 - 1.0
        };
        Self { rows, columns, values: std::iter::repeat_with(next).take(rows * columns).collect() }
    }

    pub fn span(&self) -> In<f32> {
        In::of(&self.values)
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

/// Compares sums of `terms` products of numbers below 1.
pub fn assert_close(found: &[f32], expected: &[f64], terms: usize, what: &str) {
    let tolerance = 6e-8 * (terms as f64 + 16.0);
    for (i, (y, exact)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(*y) - exact).abs() <= tolerance, "{what}: element {i} is {y}, not {exact}");
    }
    assert_eq!(found.len(), expected.len(), "{what}");
}

/// Scratch memory full of NaN, on a 64-byte boundary.
pub fn poisoned_scratch(kernel: &dyn Kernel) -> Vec<[u32; 16]> {
    vec![[u32::MAX; 16]; kernel.scratch_bytes().div_ceil(64)]
}

fn bytes(scratch: &mut [[u32; 16]]) -> &mut [u8] {
    // SAFETY: the bytes of the words.
    unsafe { std::slice::from_raw_parts_mut(scratch.as_mut_ptr().cast(), size_of_val(scratch)) }
}

/// Runs the parts last to first, each on poisoned scratch memory.
pub fn run(kernel: &dyn Kernel) {
    for part in (0..kernel.parts()).rev() {
        kernel.run(part, bytes(&mut poisoned_scratch(kernel)));
    }
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
