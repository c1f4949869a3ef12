//! Element types: how they are stored and in what precision kernels compute with them.

use std::ops::{Add, Div, Mul, Neg, Sub};

use bytemuck::Pod;
use half::bf16;

/// The arithmetic of f32 and f64.
pub trait Real:
    Float<Wide = Self>
    + PartialOrd
    + Neg<Output = Self>
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
{
    fn exp(self) -> Self;
    fn ln(self) -> Self;
    fn sqrt(self) -> Self;
    fn tanh(self) -> Self;
    fn sin(self) -> Self;
    fn cos(self) -> Self;
}

/// Anything that can be cast to a float.
pub trait Number: Pod + Send + Sync {
    fn to_f32(self) -> f32;
    fn to_f64(self) -> f64;
}

/// A stored float and the type that arithmetic on it is done in: f32 for f32 and bf16, f64 for f64.
pub trait Float: Number {
    type Wide: Real;
    fn widen(self) -> Self::Wide;
    fn narrow(value: Self::Wide) -> Self;
    /// Rounds to nearest, ties to even.
    fn from_f64(value: f64) -> Self;
    fn cast<S: Number>(value: S) -> Self;
}

/// A float whose arithmetic is f32: what the fused kernels accept.
pub trait Element: Float<Wide = f32> {}

impl<T: Float<Wide = f32>> Element for T {}

/// bf16 is the upper half of an f32: rounds to nearest even without a branch, so that loops vectorize.
#[inline(always)]
fn round_to_bf16(value: f32) -> bf16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let quiet_nan = (bits >> 16) | 0x40;
    bf16::from_bits(if value.is_nan() { quiet_nan as u16 } else { rounded as u16 })
}

impl Number for bf16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(Number::to_f32(self))
    }
}

impl Float for bf16 {
    type Wide = f32;

    #[inline(always)]
    fn widen(self) -> f32 {
        Number::to_f32(self)
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        round_to_bf16(value)
    }

    #[inline(always)]
    fn from_f64(value: f64) -> Self {
        bf16::from_f64(value)
    }

    #[inline(always)]
    fn cast<S: Number>(value: S) -> Self {
        round_to_bf16(value.to_f32())
    }
}

impl Number for u32 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self as f32
    }

    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

macro_rules! real {
    ($real:ident, $to:ident) => {
        impl Number for $real {
            #[inline(always)]
            fn to_f32(self) -> f32 {
                self as f32
            }

            #[inline(always)]
            fn to_f64(self) -> f64 {
                self as f64
            }
        }

        impl Float for $real {
            type Wide = $real;

            #[inline(always)]
            fn widen(self) -> $real {
                self
            }

            #[inline(always)]
            fn narrow(value: $real) -> Self {
                value
            }

            #[inline(always)]
            fn from_f64(value: f64) -> Self {
                value as $real
            }

            #[inline(always)]
            fn cast<S: Number>(value: S) -> Self {
                value.$to()
            }
        }
    };
}

real!(f32, to_f32);
real!(f64, to_f64);

macro_rules! functions {
    ($real:ident, exp = $exp:path) => {
        impl Real for $real {
            #[inline(always)]
            fn exp(self) -> Self {
                $exp(self)
            }

            #[inline(always)]
            fn ln(self) -> Self {
                $real::ln(self)
            }

            #[inline(always)]
            fn sqrt(self) -> Self {
                $real::sqrt(self)
            }

            #[inline(always)]
            fn tanh(self) -> Self {
                $real::tanh(self)
            }

            #[inline(always)]
            fn sin(self) -> Self {
                $real::sin(self)
            }

            #[inline(always)]
            fn cos(self) -> Self {
                $real::cos(self)
            }
        }
    };
}

functions!(f32, exp = exp);
functions!(f64, exp = f64::exp);

/// 1.5 * 2^23 + 127: adding it leaves the nearest integer, with the bias of an exponent, in the low bits of an f32.
pub(super) const EXPONENT_ROUNDER: f32 = 12_583_039.0;
/// ln 2 in two pieces, the first with few bits, so that `x - n * ln 2` keeps its precision.
pub(super) const LN_2_HIGH: f32 = 0.693_359_4;
pub(super) const LN_2_LOW: f32 = -2.121_944_4e-4;
/// exp(r) = 1 + r + r^2 * (P[0] + P[1] r + ...) on |r| <= ln 2 / 2: Cephes' expf coefficients.
pub(super) const EXP_POLYNOMIAL: [f32; 6] =
    [0.5, 0.166_666_66, 4.166_579_6e-2, 8.333_452e-3, 1.398_199_9e-3, 1.987_569_1e-4];

/// One lane of [`super::simd::Vector::exp`], branch-free: e^x within 2 units in the last place, 0 below -87.7, infinity
/// above 88.4.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let clamped = if x > 89.0 { 89.0 } else { x };
    let clamped = if clamped < -88.0 { -88.0 } else { clamped };
    let shifted = clamped * std::f32::consts::LOG2_E + EXPONENT_ROUNDER;
    let n = shifted - EXPONENT_ROUNDER;
    let r = clamped - n * LN_2_HIGH - n * LN_2_LOW;
    let [c0, c1, c2, c3, c4, c5] = EXP_POLYNOMIAL;
    let p = ((((c5 * r + c4) * r + c3) * r + c2) * r + c1) * r + c0;
    (p * (r * r) + r + 1.0) * f32::from_bits(shifted.to_bits() << 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_ulp_and_keeps_the_special_values() {
        let mut worst = 0.0f64;
        for i in -870_000..883_000 {
            let x = i as f32 * 1e-4;
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - exact).abs() / exact);
        }
        assert!(worst < 2.0 * f64::from(f32::EPSILON), "{worst}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(1000.0), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn bf16_rounding_agrees_with_half() {
        for i in 0..2_000_000u32 {
            let value = f32::from_bits(i.wrapping_mul(2_654_435_761));
            assert_eq!(
                <bf16 as Float>::narrow(value).to_bits(),
                bf16::from_f32(value).to_bits(),
                "{value:e}"
            );
        }
    }
}
