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
}
