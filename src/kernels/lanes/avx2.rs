//! AVX2 with fused multiply-add: eight lanes.

use std::arch::x86_64::*;

use super::{Body, Lanes};

#[derive(Debug, Clone, Copy)]
pub struct Avx2;

#[inline]
pub fn available() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

/// # Safety
/// [`available`] returned true.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn run<B: Body + ?Sized>(body: &B, part: usize, scratch: &mut [u8]) {
    body.compute::<Avx2>(part, scratch);
}

/// Calls an intrinsic.
macro_rules! intrinsic {
    ($call:expr) => {
        // SAFETY: Avx2 is only named by `run`, whose caller checked the machine; pointers are the caller's promise.
        unsafe { $call }
    };
}

impl Lanes for Avx2 {
    const WIDTH: usize = 8;
    const TILE_ROWS: usize = 4;
    type Vector = __m256;

    #[inline(always)]
    fn splat(value: f32) -> __m256 {
        intrinsic!(_mm256_set1_ps(value))
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m256 {
        intrinsic!(_mm256_loadu_ps(from))
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, value: __m256) {
        intrinsic!(_mm256_storeu_ps(to, value))
    }

    #[inline(always)]
    fn add(a: __m256, b: __m256) -> __m256 {
        intrinsic!(_mm256_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(a: __m256, b: __m256) -> __m256 {
        intrinsic!(_mm256_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(a: __m256, b: __m256) -> __m256 {
        intrinsic!(_mm256_mul_ps(a, b))
    }

    #[inline(always)]
    fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        intrinsic!(_mm256_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn max(a: __m256, b: __m256) -> __m256 {
        intrinsic!(_mm256_max_ps(a, b))
    }

    #[inline(always)]
    fn scale_by_power(value: __m256, shifted: __m256) -> __m256 {
        intrinsic!({
            let power = _mm256_slli_epi32::<23>(_mm256_castps_si256(shifted));
            _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(value), power))
        })
    }

    #[inline(always)]
    fn zero_where_below(value: __m256, x: __m256, bound: __m256) -> __m256 {
        intrinsic!(_mm256_and_ps(_mm256_cmp_ps::<_CMP_NLT_UQ>(x, bound), value))
    }

    /// Pairs, then quadruples of rows are interleaved within 128 bits; whole quarters are sorted last.
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
        intrinsic!({
            let rows: [_; 8] = std::array::from_fn(|i| _mm256_loadu_ps(from.add(i * from_row)));
            let pairs: [_; 8] = std::array::from_fn(|i| match i % 2 {
                0 => _mm256_castps_pd(_mm256_unpacklo_ps(rows[i], rows[i + 1])),
                _ => _mm256_castps_pd(_mm256_unpackhi_ps(rows[i - 1], rows[i])),
            });
            // fours[4 j + c] holds columns c, c + 4, .. of rows 4 j..4 j + 4.
            let fours: [_; 8] = std::array::from_fn(|i| {
                let (first, second) = (i - i % 4 + i % 4 / 2, i - i % 4 + i % 4 / 2 + 2);
                _mm256_castpd_ps(match i % 2 {
                    0 => _mm256_unpacklo_pd(pairs[first], pairs[second]),
                    _ => _mm256_unpackhi_pd(pairs[first], pairs[second]),
                })
            });
            for c in 0..4 {
                let (low, high) = (fours[c], fours[c + 4]);
                _mm256_storeu_ps(to.add(c * to_row), _mm256_permute2f128_ps::<0x20>(low, high));
                _mm256_storeu_ps(to.add((c + 4) * to_row), _mm256_permute2f128_ps::<0x31>(low, high));
            }
        });
    }
}
