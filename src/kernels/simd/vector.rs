use half::bf16;

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

    /// Lanes from `count` on are zero.
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
    /// `other` where either is NaN, on x86.
    fn max(self, other: Self) -> Self;
    fn min(self, other: Self) -> Self;
    fn sqrt(self) -> Self;
    /// self * factor + addend, in one rounding where the machine can.
    fn mul_add(self, factor: Self, addend: Self) -> Self;
    /// To the nearest integer.
    fn round(self) -> Self;
    /// self * 2^exponent for whole exponents in -127..=128; zero at -127.
    fn scale_by_power_of_two(self, exponent: Self) -> Self;
    /// Sum of the lanes.
    fn sum(self) -> f32;
    /// Largest lane.
    fn largest(self) -> f32;

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

    #[inline(always)]
    fn zero() -> Self {
        Self::splat(0.0)
    }

    /// e^self to about 1 ulp: 0 below -88, infinite above 88.4, NaN stays NaN.
    ///
    /// Polynomial of Cephes' `expf` on [-ln 2 / 2, ln 2 / 2] after reduction by powers of two.
    #[inline(always)]
    fn exp(self) -> Self {
        let x = Self::splat(89.0).min(Self::splat(-88.0).max(self));
        let exponent = x.mul(Self::splat(std::f32::consts::LOG2_E)).round();
        // ln 2 in two parts: the first has few bits, so its product with the exponent is exact.
        let r = exponent.mul_add(Self::splat(-0.693_359_4), x);
        let r = exponent.mul_add(Self::splat(2.121_944_4e-4), r);
        let p = Self::splat(1.987_569_1e-4)
            .mul_add(r, Self::splat(1.398_2e-3))
            .mul_add(r, Self::splat(8.333_452e-3))
            .mul_add(r, Self::splat(4.166_579_6e-2))
            .mul_add(r, Self::splat(1.666_666_5e-1))
            .mul_add(r, Self::splat(0.5));
        p.mul_add(r.mul(r), r.add(Self::splat(1.0))).scale_by_power_of_two(exponent)
    }

    /// 1 / (1 + e^-self)
    #[inline(always)]
    fn sigmoid(self) -> Self {
        let one = Self::splat(1.0);
        one.div(one.add(Self::zero().sub(self).exp()))
    }
}
