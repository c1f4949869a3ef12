use half::bf16;

use crate::kernels::number::{EXP_POLYNOMIAL, EXPONENT_ROUNDER, LN_2_HIGH, LN_2_LOW};

/// Minimizes the relative error of 2^r on |r| <= 1/2 among polynomials that are 1 at 0: 1.6e-7 with f32 arithmetic.
const EXP2_POLYNOMIAL: [f32; 6] =
    [1.0, std::f32::consts::LN_2, 0.240_222_83, 5.550_558_5e-2, 9.669_692e-3, 1.330_060_9e-3];

/// tanh rounds to 1 from here on.
const TANH_BOUND: f32 = 7.905_311;
/// Of x, x^3, ..: the numerator of tanh as Eigen has it.
const TANH_NUMERATOR: [f32; 7] = [
    4.893_524_6e-3,
    6.372_619_3e-4,
    1.485_722_4e-5,
    5.122_297_1e-8,
    -8.604_672e-11,
    2.000_188e-13,
    -2.760_768_5e-16,
];
/// Of 1, x^2, ..
const TANH_DENOMINATOR: [f32; 4] = [4.893_525e-3, 2.268_434_6e-3, 1.185_347e-4, 1.198_258_4e-6];

/// A vector of f32 lanes.
///
/// Its types are private to this module: [`super::Isa::run`] hands them out after checking the machine, so a vector
/// exists only where its instructions do. Pointers need no alignment beyond their element's.
pub trait Vector: Copy {
    const LANES: usize;
    /// How many such vectors the machine keeps in registers.
    const REGISTERS: usize;

    fn splat(value: f32) -> Self;

    /// # Safety
    /// `from` is valid for reading `LANES` elements.
    unsafe fn load(from: *const f32) -> Self;

    /// # Safety
    /// `to` is valid for writing `LANES` elements.
    unsafe fn store(self, to: *mut f32);

    /// Lanes from `count` on are zero. `from` needs no alignment: a lane may be a pair of bf16.
    ///
    /// # Safety
    /// `from` is valid for reading `count <= LANES` elements.
    unsafe fn load_partial(from: *const f32, count: usize) -> Self;

    /// # Safety
    /// `to` is valid for writing `count <= LANES` elements.
    unsafe fn store_partial(self, to: *mut f32, count: usize);

    /// # Safety
    /// `from` is valid for reading `LANES` elements.
    unsafe fn load_bf16(from: *const bf16) -> Self;

    /// Rounds to nearest, ties to even.
    ///
    /// # Safety
    /// `to` is valid for writing `LANES` elements.
    unsafe fn store_bf16(self, to: *mut bf16);

    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    /// 1 / self within 2 units in the last place.
    #[inline(always)]
    fn reciprocal(self) -> Self {
        Self::splat(1.0).div(self)
    }
    /// `other` where either is NaN, on x86.
    fn max(self, other: Self) -> Self;
    fn min(self, other: Self) -> Self;
    /// self * factor + addend, in one rounding where the machine can.
    fn mul_add(self, factor: Self, addend: Self) -> Self;
    /// 2^(n - 127) for the n in 1..=254 that the lowest bits hold; zero for 0, infinity for 255.
    fn low_bits_as_exponent(self) -> Self;
    /// The lower bf16 of each lane, widened.
    fn low_halves(self) -> Self;
    /// The upper bf16 of each lane, widened.
    fn high_halves(self) -> Self;
    /// Rounded to bf16, which is the upper half of each lane; the lower half holds anything.
    fn rounded_to_bf16(self) -> Self;
    /// Upper halves of both: `self`'s below, `high`'s above.
    fn join_halves(self, high: Self) -> Self;

    /// Stores the lower and the upper half of each lane.
    ///
    /// # Safety
    /// Both are valid for writing `LANES` elements.
    #[inline(always)]
    unsafe fn split_halves(self, low: *mut bf16, high: *mut bf16) {
        // SAFETY: as promised by the caller.
        unsafe {
            self.low_halves().store_bf16(low);
            self.high_halves().store_bf16(high);
        }
    }

    /// Sum of the lanes.
    fn sum(self) -> f32;
    /// Largest lane.
    fn largest(self) -> f32;

    /// Transposes a block of `LANES` rows and columns.
    ///
    /// # Safety
    /// Both pointers are the first element of such a block in a matrix with the given values from row to row.
    unsafe fn transpose(from: *const f32, from_row: usize, to: *mut f32, to_row: usize);

    /// sums`[j]` += weights`[j]` * the f32 at `base + INDEX * stride + 4 * K` bytes, for INDEX up to 2.
    ///
    /// # Safety
    /// That f32 can be read.
    #[inline(always)]
    unsafe fn add_products<const C: usize, const INDEX: usize, const K: usize>(
        sums: &mut [Self; C],
        weights: &[Self; C],
        base: *const f32,
        stride: usize,
    ) {
        // SAFETY: as promised by the caller.
        let value = Self::splat(unsafe { *base.wrapping_byte_add(INDEX * stride + 4 * K) });
        for (sum, &weight) in sums.iter_mut().zip(weights) {
            *sum = value.mul_add(weight, *sum);
        }
    }

    /// As [`Vector::add_products`] where every 32 bits hold a pair of bf16: both products are added.
    ///
    /// # Safety
    /// The pair can be read, and the vectors are those of an instruction set that [`super::Isa::for_pairs`] names.
    #[inline(always)]
    unsafe fn add_pairs<const C: usize, const INDEX: usize, const K: usize>(
        sums: &mut [Self; C],
        weights: &[Self; C],
        base: *const f32,
        stride: usize,
    ) {
        // SAFETY: as promised by the caller; rows of bf16 may start at any multiple of two bytes.
        let pair = Self::splat(unsafe { base.wrapping_byte_add(INDEX * stride + 4 * K).read_unaligned() });
        let (low, high) = (pair.low_halves(), pair.high_halves());
        for (sum, &weight) in sums.iter_mut().zip(weights) {
            *sum = high.mul_add(weight.high_halves(), low.mul_add(weight.low_halves(), *sum));
        }
    }

    /// As [`Vector::add_products`], or [`Vector::add_pairs`] with `PAIRS`, for a sum whose even lanes take the word at
    /// `base + INDEX * stride` bytes and whose odd lanes take the word after it.
    ///
    /// # Safety
    /// As there, for both words. Only where `LANES` is 16.
    #[inline(always)]
    unsafe fn add_twofold<const PAIRS: bool, const INDEX: usize>(
        &mut self,
        _weights: Self,
        _base: *const f32,
        _stride: usize,
    ) {
        debug_assert!(false, "only wide vectors hold two words of k for each column");
    }

    /// The sums of neighbouring lanes, in the first half of the lanes. Only where `LANES` is 16.
    #[inline(always)]
    fn fold(self) -> Self {
        self
    }

    /// Two vectors of words: the bf16 of `low` in their lower halves, those of `high` in their upper ones.
    ///
    /// # Safety
    /// `2 * LANES` elements can be read at both, and as many words written at `to`.
    #[inline(always)]
    unsafe fn interleave(low: *const bf16, high: *const bf16, to: *mut f32) {
        for column in [0, Self::LANES] {
            // SAFETY: as promised by the caller.
            unsafe {
                let words = Self::load_bf16(low.add(column)).join_halves(Self::load_bf16(high.add(column)));
                words.store(to.add(column));
            }
        }
    }

    /// sums`[j]` += rows`[j]` * the word at `base + INDEX * stride` bytes, for INDEX up to 2 and up to four sums. A word
    /// is an f32; with `PAIRS`, it is a pair of bf16, first times first plus second times second is added, denormals
    /// count as zero, and the first of a pair lies in the low half.
    ///
    /// # Safety
    /// That word can be read. `PAIRS` only where [`Vector::has_pair_products`].
    #[inline(always)]
    unsafe fn add_words<const PAIRS: bool, const C: usize, const INDEX: usize>(
        sums: &mut [Self; C],
        rows: &[Self; C],
        base: *const f32,
        stride: usize,
    ) {
        debug_assert!(!PAIRS);
        // SAFETY: as promised by the caller.
        unsafe { Self::add_products::<C, INDEX, 0>(sums, rows, base, stride) }
    }

    /// Whether this machine multiplies pairs of bf16 (AVX-512 BF16).
    #[inline(always)]
    fn has_pair_products() -> bool {
        false
    }

    /// Words of a lane of each, rounded to bf16: `self` in the low halves. Denormals become zero.
    ///
    /// # Safety
    /// Only where [`Vector::has_pair_products`].
    #[inline(always)]
    unsafe fn pack_pairs(self, _other: Self) -> Self {
        self
    }

    /// As [`Vector::store_bf16`], but denormals become zero.
    ///
    /// # Safety
    /// `to` is valid for writing `LANES` elements.
    #[inline(always)]
    unsafe fn store_flushed_bf16(self, to: *mut bf16) {
        // SAFETY: as promised by the caller.
        unsafe { self.store_bf16(to) }
    }

    #[inline(always)]
    fn zero() -> Self {
        Self::splat(0.0)
    }

    /// e^self within 2 units in the last place: 0 below -87.7, infinite above 88.4, NaN stays NaN.
    ///
    /// Cephes' `expf` on [-ln 2 / 2, ln 2 / 2] after reduction by powers of two.
    #[inline(always)]
    fn exp(self) -> Self {
        let x = Self::splat(89.0).min(Self::splat(-88.0).max(self));
        let rounder = Self::splat(EXPONENT_ROUNDER);
        // n, plus the exponent's bias in the low bits.
        let shifted = x.mul_add(Self::splat(std::f32::consts::LOG2_E), rounder);
        let n = shifted.sub(rounder);
        let r = n.mul_add(Self::splat(-LN_2_LOW), n.mul_add(Self::splat(-LN_2_HIGH), x));
        let [rest @ .., last] = EXP_POLYNOMIAL.map(Self::splat);
        let p = rest.into_iter().rev().fold(last, |p, coefficient| p.mul_add(r, coefficient));
        p.mul_add(r.mul(r), r.add(Self::splat(1.0))).mul(shifted.low_bits_as_exponent())
    }

    /// 2^self within 2 units in the last place: 0 below -126.5, infinite above 127.5, NaN stays NaN.
    #[inline(always)]
    fn exp2(self) -> Self {
        let x = Self::splat(128.0).min(Self::splat(-127.0).max(self));
        // The nearest integer, plus the exponent's bias in the low bits.
        let shifted = x.add(Self::splat(EXPONENT_ROUNDER));
        let rest = x.sub(shifted.sub(Self::splat(EXPONENT_ROUNDER)));
        rest.exp2_polynomial().mul(shifted.low_bits_as_exponent())
    }

    /// tanh(self) within a few units in the last place; NaN stays NaN.
    ///
    /// The odd rational function of degree 13 over 6 that Eigen uses, on the range beyond which the result rounds to 1.
    #[inline(always)]
    fn tanh(self) -> Self {
        let x = Self::splat(TANH_BOUND).min(Self::splat(-TANH_BOUND).max(self));
        let square = x.mul(x);
        let polynomial = |coefficients: &[f32]| {
            let sum = |sum: Self, &coefficient: &f32| sum.mul_add(square, Self::splat(coefficient));
            coefficients.iter().rev().fold(Self::zero(), sum)
        };
        x.mul(polynomial(&TANH_NUMERATOR)).div(polynomial(&TANH_DENOMINATOR))
    }

    /// 2^self on [-1/2, 1/2].
    #[inline(always)]
    fn exp2_polynomial(self) -> Self {
        let [rest @ .., last] = EXP2_POLYNOMIAL.map(Self::splat);
        rest.into_iter().rev().fold(last, |p, coefficient| p.mul_add(self, coefficient))
    }
}
