//! The exponential of a vector.

use super::Lanes;
use crate::kernels::number::{EXP_MIN, EXP_POLYNOMIAL, LN_2_HIGH, LN_2_LOW, ROUNDER};

/// e^x for x <= 88, within 2 units in the last place; 0 below -87.3, NaN for NaN.
#[inline(always)]
pub fn exp<L: Lanes>(x: L::Vector) -> L::Vector {
    let clamped = L::max(L::splat(EXP_MIN), x);
    let shifted = L::fma(clamped, L::splat(std::f32::consts::LOG2_E), L::splat(ROUNDER));
    let n = L::sub(shifted, L::splat(ROUNDER));
    let r = L::fma(n, L::splat(-LN_2_LOW), L::fma(n, L::splat(-LN_2_HIGH), clamped));
    let mut p = L::splat(EXP_POLYNOMIAL[5]);
    for coefficient in EXP_POLYNOMIAL[..5].iter().rev() {
        p = L::fma(p, r, L::splat(*coefficient));
    }
    let p = L::add(L::fma(p, L::mul(r, r), r), L::splat(1.0));
    L::zero_where_below(L::scale_by_power(p, shifted), x, L::splat(EXP_MIN))
}
