//! Logits that are capped softly: cap * tanh(logit / cap).

use super::CrossEntropySpec;
use crate::kernels::simd::{Vector, Vectorized};

/// Replaces logits by capped ones; returns whether there is a cap. Where `slopes` are as many as the logits, they become
/// the derivatives, which gradients are multiplied by. Lengths are whole vectors.
pub fn cap(spec: &CrossEntropySpec, logits: &mut [f32], slopes: &mut [f32]) -> bool {
    if let Some(cap) = spec.soft_cap {
        spec.isa.run(Capped { cap: cap.0 as f32, logits, slopes });
    }
    spec.soft_cap.is_some()
}

/// The derivative at a capped logit.
pub fn slope(spec: &CrossEntropySpec, capped: f32) -> f32 {
    match spec.soft_cap {
        Some(cap) => 1.0 - (capped / cap.0 as f32).powi(2),
        None => 1.0,
    }
}

/// Multiplies gradients by slopes.
pub fn apply(gradients: &mut [f32], slopes: &[f32]) {
    gradients.iter_mut().zip(slopes).for_each(|(gradient, slope)| *gradient *= slope);
}

struct Capped<'a> {
    cap: f32,
    logits: &'a mut [f32],
    slopes: &'a mut [f32],
}

impl Vectorized for Capped<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let (cap, factor) = (V::splat(self.cap), V::splat(1.0 / self.cap));
        assert!(self.logits.len().is_multiple_of(V::LANES));
        let with_slopes = self.slopes.len() >= self.logits.len();
        for at in (0..self.logits.len()).step_by(V::LANES) {
            // SAFETY: both hold whole vectors.
            unsafe {
                let logit = self.logits.as_mut_ptr().add(at);
                let ratio = V::load(logit).mul(factor).tanh();
                ratio.mul(cap).store(logit);
                if with_slopes {
                    let slope = V::splat(1.0).sub(ratio.mul(ratio));
                    slope.store(self.slopes.as_mut_ptr().add(at));
                }
            }
        }
    }
}
