//! Clipping and AdamW as nodes of the step's graph.

use crate::graph::{AdamWSpec, LazyTensor, Operation, Scalar};

/// Hyperparameters of AdamW; decay is decoupled from the gradient.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    pub betas: (f64, f64),
    pub epsilon: f64,
    pub weight_decay: f64,
    /// Gradients are scaled down to this global norm; 0 leaves them as they are.
    pub max_grad_norm: f64,
}

/// The end of a training step.
pub struct Update {
    /// Global norm of all gradients before clipping, `[1]`.
    pub grad_norm: LazyTensor,
    /// One node per trained value, to be run for its effect.
    pub effects: Vec<LazyTensor>,
}

/// Name of the state with the running mean of a parameter's gradient.
pub fn first_moment_name(parameter: &str) -> String {
    format!("{parameter}.exp_avg")
}

/// Name of the state with the running mean of a parameter's squared gradient.
pub fn second_moment_name(parameter: &str) -> String {
    format!("{parameter}.exp_avg_sq")
}

impl AdamW {
    /// Clips `gradients` together and updates every named parameter. Takes the inputs `learning_rate` and `step`, both
    /// `[1]`; `step` counts from 1.
    pub fn update(&self, parameters: &[(String, LazyTensor)], gradients: &[LazyTensor]) -> Option<Update> {
        let (first, others) = gradients.split_first()?;
        let squares = first.then(Operation::SumOfSquares, &others.iter().collect::<Vec<_>>());
        let grad_norm = squares.sqrt();
        let factor = self.factor(&grad_norm);
        let number = |name: &str| first.graph().input(name, &[1], grad_norm.dtype());
        let (rate, step) = (number("learning_rate"), number("step"));
        let effects = parameters.iter().zip(gradients).map(|((name, parameter), gradient)| {
            let moment = |name: String| first.graph().state(&name, parameter.dims(), parameter.dtype());
            let (mean, square) = (moment(first_moment_name(name)), moment(second_moment_name(name)));
            parameter.then(Operation::AdamW(self.spec()), &[gradient, &mean, &square, &rate, &step, &factor])
        });
        Some(Update { effects: effects.collect(), grad_norm })
    }

    /// min(1, max_norm / (norm + 1e-6)), as torch's clip_grad_norm_; not a number where the norm is not finite, which
    /// makes AdamW leave all states as they are.
    fn factor(&self, grad_norm: &LazyTensor) -> LazyTensor {
        let not_finite = grad_norm.affine(0.0, 0.0);
        let one = grad_norm.filled(1.0);
        if self.max_grad_norm == 0.0 {
            return one.plus(&not_finite);
        }
        let ratio = grad_norm.affine(1.0, 1e-6).reciprocal().affine(self.max_grad_norm, 0.0);
        one.minimum(&ratio).plus(&not_finite)
    }

    fn spec(&self) -> AdamWSpec {
        AdamWSpec {
            beta1: Scalar(self.betas.0),
            beta2: Scalar(self.betas.1),
            epsilon: Scalar(self.epsilon),
            weight_decay: Scalar(self.weight_decay),
        }
    }
}

/// Name of the state with the sum of a parameter's gradients over the micro-batches of a window.
pub fn gradient_name(parameter: &str) -> String {
    format!("{parameter}.grad")
}

/// The state that [`gradient_name`] names.
pub fn accumulated(parameter: &LazyTensor, name: &str) -> LazyTensor {
    parameter.graph().state(&gradient_name(name), parameter.dims(), parameter.dtype())
}
