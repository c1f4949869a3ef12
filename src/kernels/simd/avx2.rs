use std::arch::x86_64::*;

use half::bf16;

use super::Vectorized;
use super::vector::Vector;

#[derive(Clone, Copy)]
pub struct F32x8(__m256);

/// # Safety
/// The machine has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub unsafe fn run<T: Vectorized>(task: T) -> T::Output {
    task.run::<F32x8>()
}

macro_rules! call {
    ($($body:tt)*) => {{
        // SAFETY: a value of this type exists only inside `run`, where the features are; pointers are the caller's.
        unsafe { $($body)* }
    }};
}

/// All bits of the first `count` lanes.
#[inline(always)]
fn first_lanes(count: usize) -> __m256i {
    debug_assert!(count <= 8);
    call!({
        let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), lane)
    })
}

impl F32x8 {
    #[inline(always)]
    fn lanes(self) -> [f32; 8] {
        let mut lanes = [0.0; 8];
        call!(_mm256_storeu_ps(lanes.as_mut_ptr(), self.0));
        lanes
    }
}

impl Vector for F32x8 {
    const LANES: usize = 8;
    const REGISTERS: usize = 16;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        call!(Self(_mm256_set1_ps(value)))
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        call!(Self(_mm256_loadu_ps(from)))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        call!(_mm256_storeu_ps(to, self.0))
    }

    #[inline(always)]
    unsafe fn load_partial(from: *const f32, count: usize) -> Self {
        call!(Self(_mm256_maskload_ps(from, first_lanes(count))))
    }

    #[inline(always)]
    unsafe fn store_partial(self, to: *mut f32, count: usize) {
        call!(_mm256_maskstore_ps(to, first_lanes(count), self.0))
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        call!({
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            Self(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide)))
        })
    }

    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut bf16) {
        call!({
            let halves = _mm256_srli_epi32::<16>(_mm256_castps_si256(self.rounded_to_bf16().0));
            let packed = _mm256_permute4x64_epi64::<0b1000>(_mm256_packus_epi32(halves, halves));
            _mm_storeu_si128(to.cast(), _mm256_castsi256_si128(packed))
        })
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        call!(Self(_mm256_add_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        call!(Self(_mm256_sub_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        call!(Self(_mm256_mul_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        call!(Self(_mm256_div_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        call!(Self(_mm256_max_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        call!(Self(_mm256_min_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        call!(Self(_mm256_fmadd_ps(self.0, factor.0, addend.0)))
    }

    #[inline(always)]
    fn low_bits_as_exponent(self) -> Self {
        call!(Self(_mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(self.0)))))
    }

    #[inline(always)]
    fn low_halves(self) -> Self {
        call!(Self(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_castps_si256(self.0)))))
    }

    #[inline(always)]
    fn high_halves(self) -> Self {
        let mask = f32::from_bits(0xffff_0000);
        call!(Self(_mm256_and_ps(self.0, _mm256_set1_ps(mask))))
    }

    #[inline(always)]
    fn rounded_to_bf16(self) -> Self {
        call!({
            let bits = _mm256_castps_si256(self.0);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
            let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(self.0, self.0));
            let rounded = _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc0_0000), nan);
            Self(_mm256_castsi256_ps(rounded))
        })
    }

    #[inline(always)]
    fn join_halves(self, high: Self) -> Self {
        call!({
            let low = _mm256_castsi256_ps(_mm256_srli_epi32::<16>(_mm256_castps_si256(self.0)));
            Self(_mm256_or_ps(low, high.high_halves().0))
        })
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        let [a, b, c, d, e, f, g, h] = self.lanes();
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        self.lanes().into_iter().fold(f32::NEG_INFINITY, f32::max)
    }

    /// Pairs, then quadruples of rows are interleaved within 128 bits; whole quarters are sorted last.
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
        call!({
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
