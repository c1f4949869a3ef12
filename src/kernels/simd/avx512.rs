use std::arch::asm;
use std::arch::x86_64::*;

use half::bf16;

use super::vector::Vector;
use super::{Vectorized, avx512_words};

#[derive(Clone, Copy)]
pub struct F32x16(pub(super) __m512);

/// # Safety
/// The machine has the features named.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
pub unsafe fn run<T: Vectorized>(task: T) -> T::Output {
    task.run::<F32x16>()
}

#[inline(always)]
fn first_lanes(count: usize) -> __mmask16 {
    debug_assert!(count <= 16);
    ((1u32 << count) - 1) as __mmask16
}

macro_rules! call {
    ($($body:tt)*) => {{
        // SAFETY: a value of this type exists only inside `run`, where the features are; pointers are the caller's.
        unsafe { $($body)* }
    }};
}

macro_rules! add_product {
    ($two:expr, $value:ident, $operation:literal, $sums:ident, $weights:ident, $address:literal, $base:ident, $k:ident, $($stride:tt)*) => {
        // SAFETY: the caller promises that the address can be read; the rest are registers.
        unsafe {
            if $two {
                asm!(
                    concat!("vbroadcastss {value}, dword ptr ", $address),
                    concat!($operation, " {a}, {value}, {v}"),
                    concat!($operation, " {b}, {value}, {w}"),
                    value = out(zmm_reg) $value,
                    a = inout(zmm_reg) $sums[0],
                    b = inout(zmm_reg) $sums[1],
                    v = in(zmm_reg) $weights[0],
                    w = in(zmm_reg) $weights[1],
                    base = in(reg) $base,
                    offset = const 4 * $k,
                    $($stride)*
                    options(nostack, preserves_flags)
                )
            } else {
                asm!(
                    concat!($operation, " {a}, {v}, dword ptr ", $address, "{{1to16}}"),
                    a = inout(zmm_reg) $sums[0],
                    v = in(zmm_reg) $weights[0],
                    base = in(reg) $base,
                    offset = const 4 * $k,
                    $($stride)*
                    options(nostack, preserves_flags)
                )
            }
        }
    };
}

macro_rules! add_twofold {
    ($operation:literal, $pair:ident, $sum:ident, $weights:ident, $address:literal, $base:ident, $($stride:tt)*) => {
        // SAFETY: the caller promises that the address can be read; the rest are registers.
        unsafe {
            asm!(
                concat!("vbroadcastsd {pair}, qword ptr ", $address),
                concat!($operation, " {a}, {pair}, {v}"),
                pair = out(zmm_reg) $pair,
                a = inout(zmm_reg) $sum,
                v = in(zmm_reg) $weights,
                base = in(reg) $base,
                $($stride)*
                options(nostack, preserves_flags)
            )
        }
    };
}

macro_rules! add_twofold_indexed {
    ($operation:literal, $index:expr, $pair:ident, $sum:ident, $weights:ident, $base:ident, $stride:ident) => {
        match $index {
            0 => add_twofold!($operation, $pair, $sum, $weights, "[{base}]", $base,),
            1 => {
                add_twofold!($operation, $pair, $sum, $weights, "[{base} + {stride}]", $base, stride = in(reg) $stride,)
            }
            _ => {
                add_twofold!($operation, $pair, $sum, $weights, "[{base} + 2 * {stride}]", $base, stride = in(reg) $stride,)
            }
        }
    };
}

/// [`Vector::add_twofold`].
///
/// # Safety
/// As for the method; `PAIRS` needs AVX-512 BF16.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn add_twofold<const PAIRS: bool, const INDEX: usize>(
    mut sum: __m512,
    weights: __m512,
    base: *const f32,
    stride: usize,
) -> __m512 {
    let _pair: __m512;
    if PAIRS {
        add_twofold_indexed!("vdpbf16ps", INDEX, _pair, sum, weights, base, stride);
    } else {
        add_twofold_indexed!("vfmadd231ps", INDEX, _pair, sum, weights, base, stride);
    }
    sum
}

macro_rules! add_indexed {
    ($two:expr, $value:ident, $operation:literal, $index:expr, $sums:ident, $weights:ident, $base:ident, $stride:ident, $k:ident) => {
        match $index {
            0 => add_product!($two, $value, $operation, $sums, $weights, "[{base} + {offset}]", $base, $k,),
            1 => {
                add_product!($two, $value, $operation, $sums, $weights, "[{base} + {stride} + {offset}]", $base, $k, stride = in(reg) $stride,)
            }
            _ => {
                add_product!($two, $value, $operation, $sums, $weights, "[{base} + 2 * {stride} + {offset}]", $base, $k, stride = in(reg) $stride,)
            }
        }
    };
}

/// One or two sums of [`Vector::add_products`] or, for `PAIRS`, [`Vector::add_pairs`]; the second is ignored unless
/// `TWO`.
///
/// # Safety
/// As for the method; `PAIRS` needs AVX-512 BF16.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn add_products<const TWO: bool, const PAIRS: bool, const INDEX: usize, const K: usize>(
    mut sums: [__m512; 2],
    weights: [__m512; 2],
    base: *const f32,
    stride: usize,
) -> [__m512; 2] {
    let _value: __m512;
    if PAIRS {
        add_indexed!(TWO, _value, "vdpbf16ps", INDEX, sums, weights, base, stride, K);
    } else {
        add_indexed!(TWO, _value, "vfmadd231ps", INDEX, sums, weights, base, stride, K);
    }
    sums
}

/// As [`add_products`] for any number of sums.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn add_all<const C: usize, const PAIRS: bool, const INDEX: usize, const K: usize>(
    sums: &mut [F32x16; C],
    weights: &[F32x16; C],
    base: *const f32,
    stride: usize,
) {
    for (sum, weight) in sums.chunks_mut(2).zip(weights.chunks(2)) {
        match (sum, weight) {
            ([a, b], [v, w]) => {
                [a.0, b.0] =
                    call!(add_products::<true, PAIRS, INDEX, K>([a.0, b.0], [v.0, w.0], base, stride));
            }
            ([a], [v]) => {
                [a.0, _] = call!(add_products::<false, PAIRS, INDEX, K>([a.0; 2], [v.0; 2], base, stride));
            }
            _ => {}
        }
    }
}

impl Vector for F32x16 {
    const LANES: usize = 16;
    const REGISTERS: usize = 32;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        call!(Self(_mm512_set1_ps(value)))
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        call!(Self(_mm512_loadu_ps(from)))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        call!(_mm512_storeu_ps(to, self.0))
    }

    #[inline(always)]
    unsafe fn load_partial(from: *const f32, count: usize) -> Self {
        call!(Self(_mm512_maskz_loadu_ps(first_lanes(count), from)))
    }

    #[inline(always)]
    unsafe fn store_partial(self, to: *mut f32, count: usize) {
        call!(_mm512_mask_storeu_ps(to, first_lanes(count), self.0))
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        call!({
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide)))
        })
    }

    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut bf16) {
        call!({
            let [_, upper] = avx512_words::halves(self.rounded_to_bf16().0);
            _mm256_storeu_si256(to.cast(), upper)
        })
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        call!(Self(_mm512_add_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        call!(Self(_mm512_sub_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        call!(Self(_mm512_mul_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        call!(Self(_mm512_div_ps(self.0, other.0)))
    }

    /// The approximate reciprocal and one step of Newton's, a third of what a division takes.
    #[inline(always)]
    fn reciprocal(self) -> Self {
        call!({
            let estimate = _mm512_rcp14_ps(self.0);
            // Zero, infinite or not a number.
            let special = _mm512_fpclass_ps_mask::<0x9f>(estimate);
            let rest = _mm512_fnmadd_ps(self.0, estimate, _mm512_set1_ps(1.0));
            Self(_mm512_mask_fmadd_ps(estimate, !special, rest, estimate))
        })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        call!(Self(_mm512_max_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        call!(Self(_mm512_min_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        call!(Self(_mm512_fmadd_ps(self.0, factor.0, addend.0)))
    }

    #[inline(always)]
    fn exp2(self) -> Self {
        call!({
            let whole = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0);
            let p = Self(_mm512_sub_ps(self.0, whole)).exp2_polynomial();
            Self(_mm512_scalef_ps(p.0, whole))
        })
    }

    #[inline(always)]
    fn has_pair_products() -> bool {
        is_x86_feature_detected!("avx512bf16")
    }

    #[inline(always)]
    unsafe fn pack_pairs(self, other: Self) -> Self {
        call!(Self(avx512_words::pack_pairs(self.0, other.0)))
    }

    #[inline(always)]
    unsafe fn store_flushed_bf16(self, to: *mut bf16) {
        call!(_mm256_storeu_si256(to.cast(), avx512_words::narrow(self.0)))
    }

    #[inline(always)]
    unsafe fn add_words<const PAIRS: bool, const C: usize, const INDEX: usize>(
        sums: &mut [Self; C],
        rows: &[Self; C],
        base: *const f32,
        stride: usize,
    ) {
        call!(avx512_words::add_words::<PAIRS, INDEX>(sums, rows, base, stride));
    }

    #[inline(always)]
    fn low_bits_as_exponent(self) -> Self {
        call!(Self(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_castps_si512(self.0)))))
    }

    #[inline(always)]
    fn low_halves(self) -> Self {
        call!(Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_castps_si512(self.0)))))
    }

    #[inline(always)]
    fn high_halves(self) -> Self {
        let mask = f32::from_bits(0xffff_0000);
        call!(Self(_mm512_and_ps(self.0, _mm512_set1_ps(mask))))
    }

    #[inline(always)]
    fn rounded_to_bf16(self) -> Self {
        call!({
            let bits = _mm512_castps_si512(self.0);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
            // A NaN stays as it is: its highest digit, which makes it quiet, is in the upper half.
            let number = _mm512_cmp_ps_mask::<_CMP_ORD_Q>(self.0, self.0);
            Self(_mm512_castsi512_ps(_mm512_mask_add_epi32(bits, number, bits, half)))
        })
    }

    #[inline(always)]
    fn join_halves(self, high: Self) -> Self {
        call!({
            let low = _mm512_srli_epi32::<16>(_mm512_castps_si512(self.0));
            Self(_mm512_castsi512_ps(_mm512_or_si512(low, _mm512_castps_si512(high.high_halves().0))))
        })
    }

    #[inline(always)]
    unsafe fn split_halves(self, low: *mut bf16, high: *mut bf16) {
        call!({
            let [lower, upper] = avx512_words::halves(self.0);
            _mm256_storeu_si256(low.cast(), lower);
            _mm256_storeu_si256(high.cast(), upper);
        })
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        call!(_mm512_reduce_add_ps(self.0))
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        call!(_mm512_reduce_max_ps(self.0))
    }

    /// Pairs, then quadruples of rows are interleaved within 128 bits; whole quarters are sorted last. No closures: they
    /// are compiled before they are inlined, without the instruction set.
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
        call!({
            let (mut rows, mut pairs) = ([_mm512_setzero_ps(); 16], [_mm512_setzero_pd(); 16]);
            for (i, row) in rows.iter_mut().enumerate() {
                *row = _mm512_loadu_ps(from.add(i * from_row));
            }
            for i in (0..16).step_by(2) {
                pairs[i] = _mm512_castps_pd(_mm512_unpacklo_ps(rows[i], rows[i + 1]));
                pairs[i + 1] = _mm512_castps_pd(_mm512_unpackhi_ps(rows[i], rows[i + 1]));
            }
            // Then row 4 j + c holds columns c, c + 4, .. of rows 4 j..4 j + 4.
            for i in (0..16).step_by(4) {
                rows[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(pairs[i], pairs[i + 2]));
                rows[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(pairs[i], pairs[i + 2]));
                rows[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(pairs[i + 1], pairs[i + 3]));
                rows[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(pairs[i + 1], pairs[i + 3]));
            }
            for c in 0..4 {
                let [a, b, e, d] = [rows[c], rows[c + 4], rows[c + 8], rows[c + 12]];
                let even = [_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0x88>(e, d)];
                let odd = [_mm512_shuffle_f32x4::<0xdd>(a, b), _mm512_shuffle_f32x4::<0xdd>(e, d)];
                let to = to.add(c * to_row);
                _mm512_storeu_ps(to, _mm512_shuffle_f32x4::<0x88>(even[0], even[1]));
                _mm512_storeu_ps(to.add(4 * to_row), _mm512_shuffle_f32x4::<0x88>(odd[0], odd[1]));
                _mm512_storeu_ps(to.add(8 * to_row), _mm512_shuffle_f32x4::<0xdd>(even[0], even[1]));
                _mm512_storeu_ps(to.add(12 * to_row), _mm512_shuffle_f32x4::<0xdd>(odd[0], odd[1]));
            }
        });
    }

    /// In assembly, because the compiler would gather the broadcasts of many rows and spill sums to make room for
    /// them. Each block may touch memory as far as the compiler knows, which keeps them all in order.
    #[inline(always)]
    unsafe fn add_products<const C: usize, const INDEX: usize, const K: usize>(
        sums: &mut [Self; C],
        weights: &[Self; C],
        base: *const f32,
        stride: usize,
    ) {
        // SAFETY: as promised by the caller.
        unsafe { add_all::<C, false, INDEX, K>(sums, weights, base, stride) }
    }

    #[inline(always)]
    unsafe fn add_pairs<const C: usize, const INDEX: usize, const K: usize>(
        sums: &mut [Self; C],
        weights: &[Self; C],
        base: *const f32,
        stride: usize,
    ) {
        // SAFETY: as promised by the caller.
        unsafe { add_all::<C, true, INDEX, K>(sums, weights, base, stride) }
    }

    #[inline(always)]
    unsafe fn add_twofold<const PAIRS: bool, const INDEX: usize>(
        &mut self,
        weights: Self,
        base: *const f32,
        stride: usize,
    ) {
        self.0 = call!(add_twofold::<PAIRS, INDEX>(self.0, weights.0, base, stride));
    }

    #[inline(always)]
    fn fold(self) -> Self {
        call!({
            let even = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 14, 12, 10, 8, 6, 4, 2, 0);
            let sums = _mm512_add_ps(self.0, _mm512_permute_ps::<0b10_11_00_01>(self.0));
            Self(_mm512_permutexvar_ps(even, sums))
        })
    }

    #[inline(always)]
    unsafe fn interleave(low: *const bf16, high: *const bf16, to: *mut f32) {
        call!({
            let [first, second] =
                avx512_words::interleave(_mm512_loadu_si512(low.cast()), _mm512_loadu_si512(high.cast()));
            _mm512_storeu_si512(to.cast(), first);
            _mm512_storeu_si512(to.add(16).cast(), second);
        });
    }
}
