//! Cross-entropy with the logits written out.

use crate::graph::{LazyTensor, Operation, Scalar};

/// log(sum(exp(logits))) - logits[target], 0 where the target is ignored.
pub(super) fn projected_cross_entropy(inputs: &[LazyTensor], soft_cap: Option<Scalar>) -> LazyTensor {
    let (hidden, weight, targets) = (&inputs[0], &inputs[1], &inputs[2]);
    let logits = hidden.matmul_transposed(weight);
    let logits = match soft_cap {
        Some(Scalar(cap)) => logits.affine(1.0 / cap, 0.0).tanh().affine(cap, 0.0),
        None => logits,
    };
    let max = logits.max(1);
    let sum = logits.minus(&max.broadcast_to(logits.dims())).exp().sum(1);
    let log_sum_exp = sum.log().plus(&max);
    let chosen = logits.then(Operation::TakeLast, &[targets]);
    let counts = logits.filled(1.0).then(Operation::TakeLast, &[targets]);
    log_sum_exp.times(&counts).minus(&chosen).reshape(&[hidden.shape().rows()])
}
