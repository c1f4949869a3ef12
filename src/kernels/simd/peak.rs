//! The most arithmetic that this machine does, measured: multiply-adds on registers alone, on all threads.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::{Isa, Vector, Vectorized};

/// Multiply-adds of each accumulator in one run: a few milliseconds, so that no short burst counts.
const STEPS: usize = 2_000_000;
/// Until every thread runs at its clock.
const WARM_UP: Duration = Duration::from_millis(5);
const MEASURED: Duration = Duration::from_millis(400);
/// A multiply-add is two operations.
const OPERATIONS: usize = 2;

/// Floating-point operations per second of f32 multiply-adds.
pub fn f32_peak(isa: Isa, threads: usize) -> f64 {
    sustained(threads, &|| isa.run(MultiplyAdds))
}

/// Floating-point operations per second of dot products of bf16 pairs that accumulate in f32, where `isa` has the
/// instruction.
pub fn bf16_dot_peak(isa: Isa, threads: usize) -> Option<f64> {
    if !isa.has_bf16_dot() {
        return None;
    }
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the features have just been checked.
    return Some(sustained(threads, &|| unsafe { bf16_dots() }));
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = threads;
        None
    }
}

/// Runs `work`, which returns how many operations it did, on all threads over the same time; the sum of each thread's
/// median rate: what the machine keeps up, not what it reaches in a burst.
fn sustained(threads: usize, work: &(dyn Fn() -> usize + Sync)) -> f64 {
    let begin = Instant::now() + WARM_UP;
    let end = begin + MEASURED;
    let rate = move || {
        let mut rates = Vec::new();
        loop {
            let start = Instant::now();
            if start >= end && !rates.is_empty() {
                rates.sort_by(f64::total_cmp);
                return rates[rates.len() / 2];
            }
            let operations = work();
            if start >= begin {
                rates.push(operations as f64 / start.elapsed().as_secs_f64());
            }
        }
    };
    std::thread::scope(|scope| {
        // A thread that the system does not give adds nothing to the sum.
        let spawn = |_| std::thread::Builder::new().spawn_scoped(scope, rate).ok();
        let others: Vec<_> = (1..threads).filter_map(spawn).collect();
        let own = rate();
        own + others.into_iter().filter_map(|other| other.join().ok()).sum::<f64>()
    })
}

struct MultiplyAdds;

impl Vectorized for MultiplyAdds {
    type Output = usize;

    #[inline(always)]
    fn run<V: Vector>(self) -> usize {
        // Enough independent sums to hide the latency, few enough to stay in registers.
        if V::REGISTERS >= 32 { multiply_adds::<V, 24>() } else { multiply_adds::<V, 12>() }
    }
}

#[inline(always)]
fn multiply_adds<V: Vector, const SUMS: usize>() -> usize {
    let factor = V::splat(black_box(0.999));
    let mut sums = [V::splat(black_box(0.5)); SUMS];
    let steps = STEPS * 12 / SUMS;
    for _ in 0..steps {
        for sum in &mut sums {
            *sum = sum.mul_add(factor, factor);
        }
    }
    black_box(sums.into_iter().fold(V::zero(), V::add).sum());
    steps * SUMS * V::LANES * OPERATIONS
}

/// # Safety
/// The machine has AVX-512 F and BF16.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn bf16_dots() -> usize {
    use std::arch::x86_64::{
        __m512bh, _mm512_add_ps, _mm512_dpbf16_ps, _mm512_reduce_add_ps, _mm512_set1_ps,
    };
    const SUMS: usize = 24;
    const PAIRS: usize = 16;
    // 2^-100 in every bf16: products vanish, and nothing becomes infinite.
    let tiny = black_box(0x0d80_u16);
    // SAFETY: both types are 64 bytes without invalid values.
    let factor = unsafe { std::mem::transmute::<[u16; 32], __m512bh>([tiny; 32]) };
    // Variables of their own stay in registers, where the elements of an array may not.
    macro_rules! add_products {
        ($($sum:ident)*) => {
            $(let mut $sum = _mm512_set1_ps(black_box(0.5));)*
            for _ in 0..STEPS / 2 {
                $($sum = _mm512_dpbf16_ps($sum, factor, factor);)*
            }
            let mut total = _mm512_set1_ps(0.0);
            $(total = _mm512_add_ps(total, $sum);)*
            black_box(_mm512_reduce_add_ps(total));
        };
    }
    add_products!(a b c d e f g h i j k l m n o p q r s t u v w x);
    STEPS / 2 * SUMS * PAIRS * 2 * OPERATIONS
}
