//! AVX-512: sixteen lanes.

use std::arch::x86_64::*;

use super::{Body, Lanes};

#[derive(Debug, Clone, Copy)]
pub struct Avx512;

#[inline]
pub fn available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("fma")
}

/// # Safety
/// [`available`] returned true.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
pub unsafe fn run<B: Body + ?Sized>(body: &B, part: usize, scratch: &mut [u8]) {
    body.compute::<Avx512>(part, scratch);
}

/// Calls an intrinsic.
macro_rules! intrinsic {
    ($call:expr) => {
        // SAFETY: Avx512 is only named by `run`, whose caller checked the machine; pointers are the caller's promise.
        unsafe { $call }
    };
}

impl Lanes for Avx512 {
    const WIDTH: usize = 16;
    const TILE_ROWS: usize = 8;
    type Vector = __m512;

    #[inline(always)]
    fn splat(value: f32) -> __m512 {
        intrinsic!(_mm512_set1_ps(value))
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        intrinsic!(_mm512_loadu_ps(from))
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, value: __m512) {
        intrinsic!(_mm512_storeu_ps(to, value))
    }

    #[inline(always)]
    fn add(a: __m512, b: __m512) -> __m512 {
        intrinsic!(_mm512_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(a: __m512, b: __m512) -> __m512 {
        intrinsic!(_mm512_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(a: __m512, b: __m512) -> __m512 {
        intrinsic!(_mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        intrinsic!(_mm512_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn max(a: __m512, b: __m512) -> __m512 {
        intrinsic!(_mm512_max_ps(a, b))
    }

    #[inline(always)]
    fn scale_by_power(value: __m512, shifted: __m512) -> __m512 {
        intrinsic!({
            let power = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted));
            _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(value), power))
        })
    }

    #[inline(always)]
    fn zero_where_below(value: __m512, x: __m512, bound: __m512) -> __m512 {
        intrinsic!(_mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, bound), value))
    }

    /// Pairs, then quadruples of rows are interleaved within 128 bits; whole quarters are sorted last.
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
        intrinsic!({
            let rows: [_; 16] = std::array::from_fn(|i| _mm512_loadu_ps(from.add(i * from_row)));
            let pairs: [_; 16] = std::array::from_fn(|i| match i % 2 {
                0 => _mm512_castps_pd(_mm512_unpacklo_ps(rows[i], rows[i + 1])),
                _ => _mm512_castps_pd(_mm512_unpackhi_ps(rows[i - 1], rows[i])),
            });
            // fours[4 j + c] holds columns c, c + 4, .. of rows 4 j..4 j + 4.
            let fours: [_; 16] = std::array::from_fn(|i| {
                let (first, second) = (i - i % 4 + i % 4 / 2, i - i % 4 + i % 4 / 2 + 2);
                _mm512_castpd_ps(match i % 2 {
                    0 => _mm512_unpacklo_pd(pairs[first], pairs[second]),
                    _ => _mm512_unpackhi_pd(pairs[first], pairs[second]),
                })
            });
            for c in 0..4 {
                let [a, b, e, d] = [fours[c], fours[c + 4], fours[c + 8], fours[c + 12]];
                let even = [_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0x88>(e, d)];
                let odd = [_mm512_shuffle_f32x4::<0xdd>(a, b), _mm512_shuffle_f32x4::<0xdd>(e, d)];
                let at = |column: usize| to.add(column * to_row);
                _mm512_storeu_ps(at(c), _mm512_shuffle_f32x4::<0x88>(even[0], even[1]));
                _mm512_storeu_ps(at(c + 4), _mm512_shuffle_f32x4::<0x88>(odd[0], odd[1]));
                _mm512_storeu_ps(at(c + 8), _mm512_shuffle_f32x4::<0xdd>(even[0], even[1]));
                _mm512_storeu_ps(at(c + 12), _mm512_shuffle_f32x4::<0xdd>(odd[0], odd[1]));
            }
        });
    }
}
