use std::arch::aarch64::*;

use half::bf16;

use super::Vectorized;
use super::vector::Vector;

#[derive(Clone, Copy)]
pub struct F32x4(float32x4_t);

/// # Safety
/// The machine has NEON.
#[target_feature(enable = "neon")]
pub unsafe fn run<T: Vectorized>(task: T) -> T::Output {
    task.run::<F32x4>()
}

macro_rules! call {
    ($($body:tt)*) => {{
        // SAFETY: a value of this type exists only inside `run`, where NEON is; pointers are the caller's.
        unsafe { $($body)* }
    }};
}

impl Vector for F32x4 {
    const LANES: usize = 4;
    const REGISTERS: usize = 32;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        call!(Self(vdupq_n_f32(value)))
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        call!(Self(vld1q_f32(from)))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        call!(vst1q_f32(to, self.0))
    }

    #[inline(always)]
    unsafe fn load_partial(from: *const f32, count: usize) -> Self {
        let mut lanes = [0.0f32; 4];
        let bytes = lanes.as_mut_ptr().cast::<u8>();
        // SAFETY: the caller promises `count <= 4` elements at `from`; bytes need no alignment.
        unsafe { std::ptr::copy_nonoverlapping(from.cast(), bytes, count * size_of::<f32>()) };
        call!(Self(vld1q_f32(lanes.as_ptr())))
    }

    #[inline(always)]
    unsafe fn store_partial(self, to: *mut f32, count: usize) {
        let mut lanes = [0.0f32; 4];
        call!(vst1q_f32(lanes.as_mut_ptr(), self.0));
        // SAFETY: the caller promises room for `count <= 4` elements at `to`.
        unsafe { std::ptr::copy_nonoverlapping(lanes.as_ptr(), to, count) };
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        call!(Self(vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(from.cast())))))
    }

    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut bf16) {
        call!({
            let rounded = vreinterpretq_u32_f32(self.rounded_to_bf16().0);
            vst1_u16(to.cast(), vshrn_n_u32::<16>(rounded))
        })
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        call!(Self(vaddq_f32(self.0, other.0)))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        call!(Self(vsubq_f32(self.0, other.0)))
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        call!(Self(vmulq_f32(self.0, other.0)))
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        call!(Self(vdivq_f32(self.0, other.0)))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        call!(Self(vmaxq_f32(self.0, other.0)))
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        call!(Self(vminq_f32(self.0, other.0)))
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        call!(Self(vfmaq_f32(addend.0, self.0, factor.0)))
    }

    #[inline(always)]
    fn low_bits_as_exponent(self) -> Self {
        call!(Self(vreinterpretq_f32_u32(vshlq_n_u32::<23>(vreinterpretq_u32_f32(self.0)))))
    }

    #[inline(always)]
    fn low_halves(self) -> Self {
        call!(Self(vreinterpretq_f32_u32(vshlq_n_u32::<16>(vreinterpretq_u32_f32(self.0)))))
    }

    #[inline(always)]
    fn high_halves(self) -> Self {
        call!({
            let bits = vandq_u32(vreinterpretq_u32_f32(self.0), vdupq_n_u32(0xffff_0000));
            Self(vreinterpretq_f32_u32(bits))
        })
    }

    #[inline(always)]
    fn rounded_to_bf16(self) -> Self {
        call!({
            let bits = vreinterpretq_u32_f32(self.0);
            let odd = vandq_u32(vshrq_n_u32::<16>(bits), vdupq_n_u32(1));
            let rounded = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd);
            let number = vceqq_f32(self.0, self.0);
            Self(vreinterpretq_f32_u32(vbslq_u32(number, rounded, vdupq_n_u32(0x7fc0_0000))))
        })
    }

    #[inline(always)]
    fn join_halves(self, high: Self) -> Self {
        call!({
            let low = vshrq_n_u32::<16>(vreinterpretq_u32_f32(self.0));
            Self(vreinterpretq_f32_u32(vorrq_u32(low, vreinterpretq_u32_f32(high.high_halves().0))))
        })
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        call!(vaddvq_f32(self.0))
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        call!(vmaxvq_f32(self.0))
    }

    /// Pairs of rows are interleaved first, then pairs of pairs.
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
        call!({
            let rows: [_; 4] = std::array::from_fn(|i| vld1q_f32(from.add(i * from_row)));
            // even[j] holds columns 0 and 2 of rows 2 j and 2 j + 1; odd[j] columns 1 and 3.
            let even = [0, 2].map(|i| vreinterpretq_f64_f32(vtrn1q_f32(rows[i], rows[i + 1])));
            let odd = [0, 2].map(|i| vreinterpretq_f64_f32(vtrn2q_f32(rows[i], rows[i + 1])));
            for (column, [top, bottom]) in [even, odd].into_iter().enumerate() {
                let at = |column: usize| to.add(column * to_row);
                vst1q_f32(at(column), vreinterpretq_f32_f64(vtrn1q_f64(top, bottom)));
                vst1q_f32(at(column + 2), vreinterpretq_f32_f64(vtrn2q_f64(top, bottom)));
            }
        });
    }
}
