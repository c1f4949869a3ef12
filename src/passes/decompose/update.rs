//! The optimizer's step written out.

use crate::graph::{AdamWSpec, LazyTensor, Operation};

pub(super) fn sum_of_squares(inputs: &[LazyTensor]) -> LazyTensor {
    let squares = inputs.iter().map(|x| x.times(x).sum_all());
    squares.reduce(|sum, square| sum.plus(&square)).unwrap_or_else(|| inputs[0].filled(0.0))
}

/// `changed` where `applies` is 1, `kept` where it is 0, even if `changed` is not a number there.
fn choose(applies: &LazyTensor, kept: &LazyTensor, changed: &LazyTensor) -> LazyTensor {
    let bound = changed.filled(f64::from(f32::MAX));
    // `minimum` takes its right side where the left one is not a number.
    let finite = changed.minimum(&bound).negate().minimum(&bound).negate();
    finite.times(applies).plus(&kept.times(&applies.affine(-1.0, 1.0)))
}

/// Where the factor for the gradient is not a number, everything stays as it is. Otherwise
/// m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
/// p = p (1 - rate decay) - rate / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + epsilon).
pub(super) fn adamw(inputs: &[LazyTensor], spec: &AdamWSpec) -> LazyTensor {
    let [parameter, gradient, first, second] = [&inputs[0], &inputs[1], &inputs[2], &inputs[3]];
    let spread = |t: &LazyTensor| {
        let ones: Vec<usize> = parameter.dims().iter().map(|_| 1).collect();
        t.reshape(&ones).broadcast_to(parameter.dims())
    };
    let (rate, step) = (&inputs[4], &inputs[5]);
    let applies = spread(&inputs[6].equals(&inputs[6]));
    let gradient = gradient.times(&spread(&inputs[6]));
    let mix = |old: &LazyTensor, beta: f64, value: &LazyTensor| {
        let mixed = old.affine(beta, 0.0).plus(&value.affine(1.0 - beta, 0.0));
        old.then(Operation::Assign, &[&choose(&applies, old, &mixed)])
    };
    let first = mix(first, spec.beta1.0, &gradient);
    let second = mix(second, spec.beta2.0, &gradient.times(&gradient));
    // beta^t = exp(t ln(beta))
    let correction = |beta: f64| step.affine(beta.ln(), 0.0).exp().affine(-1.0, 1.0);
    let denominator = second.over(&spread(&correction(spec.beta2.0))).sqrt().affine(1.0, spec.epsilon.0);
    let stride = spread(&rate.over(&correction(spec.beta1.0)));
    let kept = parameter.times(&spread(&rate.affine(-spec.weight_decay.0, 1.0)));
    let moved = kept.minus(&first.times(&stride).over(&denominator));
    parameter.then(Operation::Assign, &[&choose(&applies, parameter, &moved)])
}
