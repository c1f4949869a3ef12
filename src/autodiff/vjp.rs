//! Vector-Jacobian products: one arm for every operation, no wildcard.

use super::matrix::{expert_linear, linear, matmul};
use super::plain::{binary, broadcast, concat, inverse_permutation, slice, unary};
use crate::error::{Error, Result};
use crate::graph::{Binary, LazyTensor, Operation, Reduction};

/// An operation in the forward graph, and the gradients that flow back into it.
pub(super) struct Application<'a> {
    pub operation: &'a Operation,
    pub inputs: &'a [&'a LazyTensor],
    /// The node itself; its first output, where there are several.
    pub y: &'a LazyTensor,
    /// Gradient of each output, where the loss depends on it.
    pub dy: &'a [Option<LazyTensor>],
    /// Which inputs need a gradient.
    pub wanted: &'a [bool],
}

/// Gradients of the inputs, `None` where an input has none or needs none.
pub(super) fn vjp(at: &Application<'_>) -> Result<Vec<Option<LazyTensor>>> {
    use Operation as Op;
    let x = at.inputs.first().copied().unwrap_or(at.y);
    let Some(dy) = at.dy.first().cloned().flatten() else {
        return Err(not_differentiable(at, "only its first output can be"));
    };
    Ok(match at.operation {
        Op::Input(_) | Op::Frozen(_) | Op::State(_) | Op::Constant(_) | Op::RopeTable(_) => Vec::new(),
        Op::AttentionMask { .. }
        | Op::CacheMask { .. }
        | Op::DropoutMask { .. }
        | Op::Route { .. }
        | Op::Detach
        | Op::Binary(Binary::Equal) => {
            vec![None; at.inputs.len()]
        }
        Op::Unary(kind) => vec![Some(unary(*kind, x, at.y, &dy))],
        Op::Binary(kind) => binary(*kind, [x, at.inputs[1]], at.y, &dy, at.wanted),
        Op::Affine { multiply, .. } => vec![Some(dy.affine(multiply.0, 0.0))],
        Op::Cast(_) => vec![x.dtype().is_float().then(|| dy.cast(x.dtype()))],
        Op::Reshape(_) => vec![Some(dy.reshape(x.dims()))],
        Op::BroadcastTo(_) => vec![Some(broadcast(x, &dy))],
        Op::Permute(axes) => vec![Some(dy.permute(&inverse_permutation(axes, x.shape().rank())))],
        Op::Slice { axis, start, length } => vec![Some(slice(x, &dy, *axis, *start, *length))],
        Op::Concat { axis } => concat(at.inputs, &dy, *axis),
        Op::Reduce { reduction: Reduction::Sum, .. } => vec![Some(dy.broadcast_to(x.dims()))],
        Op::Reduce { reduction: Reduction::Max, axis } => {
            // Ties share the gradient equally.
            let ties = x.equals(&at.y.broadcast_to(x.dims()));
            let share = dy.over(&ties.sum(*axis));
            vec![Some(share.broadcast_to(x.dims()).times(&ties))]
        }
        Op::MatMul { transpose_left, transpose_right, .. } => {
            matmul([x, at.inputs[1]], &dy, *transpose_left, *transpose_right, at.wanted)
        }
        Op::Embedding => {
            let rows = x.shape().rows();
            vec![Some(at.inputs[1].then(Op::ScatterRows { rows }, &[&dy])), None]
        }
        Op::ScatterRows { .. } => vec![None, Some(dy.embedding(x))],
        Op::TakeLast => {
            vec![Some(dy.then(Op::ScatterLast { size: x.shape().last() }, &[at.inputs[1]])), None]
        }
        Op::ScatterLast { .. } => vec![Some(dy.then(Op::TakeLast, &[at.inputs[1]])), None],
        Op::SumOfSquares => sum_of_squares(at.inputs, &dy),
        Op::RmsNorm { .. }
        | Op::Rope { .. }
        | Op::Attention(_)
        | Op::AddBias
        | Op::SwiGlu
        | Op::GeGlu
        | Op::Linear { .. }
        | Op::ExpertLinear { .. }
        | Op::ProjectedCrossEntropy { .. } => fused(at, x, &dy)?,
        Op::RmsNormGrad { .. }
        | Op::AttentionGrad(_)
        | Op::CachedAttention(_)
        | Op::SwiGluGrad
        | Op::GeGluGrad
        | Op::LinearGatedGrad { .. }
        | Op::ExpertWeightGrad { .. }
        | Op::ProjectedCrossEntropyGrad { .. }
        | Op::ProjectedCrossEntropyWeightGrad { .. }
        | Op::AdamW(_)
        | Op::Assign
        | Op::WriteRows
        | Op::Pack
        | Op::PackedEmbedding
        | Op::Output(_) => {
            return Err(not_differentiable(at, "it only serves gradients, updates or decoding"));
        }
    })
}

fn fused(at: &Application<'_>, x: &LazyTensor, dy: &LazyTensor) -> Result<Vec<Option<LazyTensor>>> {
    use Operation as Op;
    Ok(match at.operation {
        Op::RmsNorm { epsilon } => {
            let weight_gradient = at.wanted[1];
            let gradient = Op::RmsNormGrad { epsilon: *epsilon, weight_gradient, residual: false };
            let grad = x.then(gradient, &[at.inputs[1], dy]);
            vec![Some(grad.output(0)), weight_gradient.then(|| grad.output(1))]
        }
        Op::Rope { head_dim, inverse } => {
            if at.wanted[1] || at.wanted[2] {
                return Err(not_differentiable(at, "its angles are constants"));
            }
            let back = Op::Rope { head_dim: *head_dim, inverse: !inverse };
            vec![Some(dy.then(back, &[at.inputs[1], at.inputs[2]])), None, None]
        }
        Op::Attention(spec) => {
            let [k, v, segments] = [at.inputs[1], at.inputs[2], at.inputs[3]];
            let (out, log_sum_exp) = (at.y.output(0), at.y.output(1));
            let grad = x.then(Op::AttentionGrad(*spec), &[k, v, segments, &out, &log_sum_exp, dy]);
            vec![Some(grad.output(0)), Some(grad.output(1)), Some(grad.output(2)), None]
        }
        Op::AddBias => {
            let bias = at.inputs[1];
            vec![Some(dy.clone()), at.wanted[1].then(|| dy.sum(0).reshape(bias.dims()))]
        }
        Op::SwiGlu | Op::GeGlu => {
            let gradient = if *at.operation == Op::SwiGlu { Op::SwiGluGrad } else { Op::GeGluGrad };
            let grad = x.then(gradient, &[at.inputs[1], dy]);
            vec![Some(grad.output(0)), Some(grad.output(1))]
        }
        Op::Linear { transpose_weight, low_rank, residual } => {
            linear(at.inputs, dy, *transpose_weight, *low_rank, *residual, at.wanted)
        }
        Op::ExpertLinear { transpose_weight } => expert_linear(at.inputs, dy, *transpose_weight, at.wanted),
        Op::ProjectedCrossEntropy { soft_cap } => {
            let (soft_cap, [weight, targets]) = (*soft_cap, [at.inputs[1], at.inputs[2]]);
            let grad = x.then(Op::ProjectedCrossEntropyGrad { soft_cap }, &[weight, targets, dy]);
            let of_weight = Op::ProjectedCrossEntropyWeightGrad { soft_cap };
            let dweight = || x.then(of_weight, &[weight, targets, dy, &grad.output(1)]);
            vec![Some(grad.output(2)), at.wanted[1].then(dweight), None]
        }
        _ => return Err(not_differentiable(at, "it is not a fused operation")),
    })
}

fn sum_of_squares(inputs: &[&LazyTensor], dy: &LazyTensor) -> Vec<Option<LazyTensor>> {
    let gradient = |x: &&LazyTensor| {
        let ones: Vec<usize> = x.dims().iter().map(|_| 1).collect();
        let factor = dy.cast(x.dtype()).reshape(&ones).broadcast_to(x.dims());
        Some(x.affine(2.0, 0.0).times(&factor))
    };
    inputs.iter().map(gradient).collect()
}

fn not_differentiable(at: &Application<'_>, why: &str) -> Error {
    Error::shape(format!("{:?} cannot be differentiated: {why}", at.operation))
}
