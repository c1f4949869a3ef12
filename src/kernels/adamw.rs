//! One AdamW update (Loshchilov and Hutter 2017, arXiv:1711.05101), in the order of torch.optim.AdamW's arithmetic.

use super::body::Body;
use super::number::Element;
use super::simd::Vector;
use super::split::{Split, expect_len};
use super::{In, Out};
use crate::error::Result;
use crate::graph::AdamWSpec;

/// The three states one update changes in place, all of the parameter's shape.
#[derive(Debug, Clone, Copy)]
pub struct AdamWStates {
    pub parameter: Out<f32>,
    pub first_moment: Out<f32>,
    pub second_moment: Out<f32>,
}

/// The numbers that change from step to step, f32 `[1]` each.
#[derive(Debug, Clone, Copy)]
pub struct AdamWStep {
    pub learning_rate: In<f32>,
    /// Counted from 1.
    pub number: In<f32>,
    /// Multiplies the gradient: clipping, loss scaling. Where it is NaN, nothing is updated.
    pub gradient_factor: In<f32>,
}

/// Updates the parameter and its moments.
#[derive(Debug)]
pub struct AdamW<E> {
    spec: AdamWSpec,
    states: AdamWStates,
    step: AdamWStep,
    gradient: In<E>,
    split: Split,
}

/// What a step multiplies with, computed in f64 and rounded once.
struct Factors {
    gradient: f32,
    decay: f32,
    first: f32,
    second: f32,
    second_complement: f32,
    root_correction: f32,
    epsilon: f32,
    step_size: f32,
}

impl<E: Element> AdamW<E> {
    /// # Errors
    /// An internal error if the lengths differ or a step number is not one element.
    pub fn new(spec: AdamWSpec, states: AdamWStates, gradient: In<E>, step: AdamWStep) -> Result<Self> {
        let n = states.parameter.len();
        expect_len("the gradient", gradient.len(), n)?;
        expect_len("the first moment", states.first_moment.len(), n)?;
        expect_len("the second moment", states.second_moment.len(), n)?;
        expect_len("the learning rate", step.learning_rate.len(), 1)?;
        expect_len("the step number", step.number.len(), 1)?;
        expect_len("the gradient factor", step.gradient_factor.len(), 1)?;
        Ok(Self { spec, states, step, gradient, split: Split::rows(n, 4 * size_of::<f32>()) })
    }

    fn factors(&self) -> Factors {
        let (beta1, beta2) = (self.spec.beta1.0, self.spec.beta2.0);
        let learning_rate = f64::from(self.step.learning_rate.as_slice()[0]);
        let number = f64::from(self.step.number.as_slice()[0]);
        Factors {
            gradient: self.step.gradient_factor.as_slice()[0],
            decay: (1.0 - learning_rate * self.spec.weight_decay.0) as f32,
            first: (1.0 - beta1) as f32,
            second: beta2 as f32,
            second_complement: (1.0 - beta2) as f32,
            root_correction: (1.0 - beta2.powf(number)).sqrt() as f32,
            epsilon: self.spec.epsilon.0 as f32,
            step_size: (learning_rate / (1.0 - beta1.powf(number))) as f32,
        }
    }
}

/// start + weight * (end - start), from whichever end is nearer; multiplied and added with one rounding, as PyTorch does.
#[inline(always)]
fn interpolate(start: f32, end: f32, weight: f32) -> f32 {
    if weight < 0.5 { weight.mul_add(end - start, start) } else { (weight - 1.0).mul_add(end - start, end) }
}

impl<E: Element> Body for AdamW<E> {
    fn parts(&self) -> usize {
        self.split.count()
    }

    #[inline(always)]
    fn compute<V: Vector>(&self, part: usize, _scratch: &mut [u8]) {
        let f = self.factors();
        // The gradients' norm was not finite: the step is left out.
        if f.gradient.is_nan() {
            return;
        }
        let range = self.split.range(part);
        let AdamWStates { parameter, first_moment, second_moment } = &self.states;
        // SAFETY: parts are disjoint ranges of each state.
        let parameter = unsafe { parameter.range(range.clone()) };
        // SAFETY: as above.
        let first_moment = unsafe { first_moment.range(range.clone()) };
        // SAFETY: as above.
        let second_moment = unsafe { second_moment.range(range.clone()) };
        let states = parameter.iter_mut().zip(first_moment).zip(second_moment);
        for (((p, m), v), g) in states.zip(&self.gradient.as_slice()[range]) {
            let g = g.widen() * f.gradient;
            *p *= f.decay;
            *m = interpolate(*m, g, f.first);
            *v = (f.second_complement * g).mul_add(g, *v * f.second);
            let denominator = v.sqrt() / f.root_correction + f.epsilon;
            *p -= f.step_size * *m / denominator;
        }
    }
}
