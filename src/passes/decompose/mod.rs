//! Fused operations written out in plain ones: their definition, their oracle in tests, and what a device runs that
//! lacks the kernel.
//!
//! It runs before differentiation, so that gradients are those of the plain operations.

mod attention;
mod loss;
mod update;

use super::rewriter::rewrite;
use crate::error::{Error, Result};
use crate::graph::{FrozenGraph, LazyTensor, LowRank, Operation};

/// Replaces the fused operations that `lacks_kernel` selects.
///
/// # Errors
/// An internal error for an operation that only differentiation makes: decompose before it.
pub fn decompose(graph: &FrozenGraph, lacks_kernel: &dyn Fn(&Operation) -> bool) -> Result<FrozenGraph> {
    rewrite(graph, &|rewriter, index, inputs| {
        let operation = &rewriter.node(index).operation;
        if lacks_kernel(operation) { plain(operation, inputs) } else { Ok(None) }
    })
}

/// The plain form of a fused operation, one tensor per output; `None` for operations that are plain already.
fn plain(operation: &Operation, inputs: &[LazyTensor]) -> Result<Option<Vec<LazyTensor>>> {
    use Operation as Op;
    let one = match operation {
        Op::RmsNorm { epsilon } => rms_norm(inputs, epsilon.0),
        Op::Rope { head_dim, inverse } => rope(inputs, *head_dim, *inverse),
        Op::Attention(spec) => return Ok(Some(attention::attention(inputs, spec))),
        Op::CachedAttention(spec) => attention::cached(inputs, spec),
        Op::AddBias => {
            let (x, bias) = (&inputs[0], &inputs[1]);
            x.plus(&bias.reshape(&[1, x.shape().last()]).broadcast_to(x.dims()))
        }
        Op::SwiGlu => inputs[0].times(&inputs[0].sigmoid()).times(&inputs[1]),
        Op::GeGlu => inputs[0].times(&gelu_slope(&inputs[0])).times(&inputs[1]),
        Op::Linear { transpose_weight, low_rank, residual } => {
            linear(inputs, *transpose_weight, *low_rank, *residual)
        }
        Op::ProjectedCrossEntropy { soft_cap } => loss::projected_cross_entropy(inputs, *soft_cap),
        Op::SumOfSquares => update::sum_of_squares(inputs),
        Op::AdamW(spec) => update::adamw(inputs, spec),
        Op::RmsNormGrad { .. }
        | Op::AttentionGrad(_)
        | Op::SwiGluGrad
        | Op::GeGluGrad
        | Op::LinearGatedGrad { .. }
        | Op::ProjectedCrossEntropyGrad { .. }
        | Op::ProjectedCrossEntropyWeightGrad { .. } => {
            return Err(Error::internal(format!(
                "{operation:?} has no plain form: decompose before differentiating"
            )));
        }
        _ => return Ok(None),
    };
    Ok(Some(vec![one]))
}

fn rms_norm(inputs: &[LazyTensor], epsilon: f64) -> LazyTensor {
    let (x, weight) = (&inputs[0], &inputs[1]);
    let width = x.shape().last();
    let mean_square = x.times(x).sum(1).affine(1.0 / width as f64, epsilon);
    let normalized = x.times(&mean_square.sqrt().reciprocal().broadcast_to(x.dims()));
    normalized.times(&weight.reshape(&[1, width]).broadcast_to(x.dims()))
}

/// gelu(x) / x = (1 + tanh(u)) / 2 = sigmoid(2 u) with u = sqrt(2 / pi) (x + 0.044715 x^3).
fn gelu_slope(x: &LazyTensor) -> LazyTensor {
    let twice = 2.0 * (2.0 / std::f64::consts::PI).sqrt();
    x.times(&x.times(x).affine(0.044_715 * twice, twice)).sigmoid()
}

/// (a, b) -> (a cos - b sin, b cos + a sin) for the two halves of each head.
fn rope(inputs: &[LazyTensor], head_dim: usize, inverse: bool) -> LazyTensor {
    let x = &inputs[0];
    let (tokens, half) = (x.shape().rows(), head_dim / 2);
    let heads = x.shape().last() / head_dim;
    let pairs = x.reshape(&[tokens, heads, 2, half]);
    let (a, b) = (pairs.slice(2, 0, 1), pairs.slice(2, 1, 1));
    let angle = |t: &LazyTensor| t.reshape(&[tokens, 1, 1, half]).broadcast_to(&[tokens, heads, 1, half]);
    let cos = angle(&inputs[1]);
    let sin = if inverse { angle(&inputs[2]).negate() } else { angle(&inputs[2]) };
    let first = a.times(&cos).minus(&b.times(&sin));
    let second = b.times(&cos).plus(&a.times(&sin));
    first.concat(2, &[&second]).reshape(x.dims())
}

fn linear(
    inputs: &[LazyTensor],
    transpose_weight: bool,
    low_rank: Option<LowRank>,
    residual: bool,
) -> LazyTensor {
    let (x, weight) = (&inputs[0], &inputs[1]);
    let mut y = if transpose_weight { x.matmul(weight) } else { x.matmul_transposed(weight) };
    if let Some(LowRank { scale, transpose }) = low_rank {
        let (u, v) = (&inputs[2], &inputs[3]);
        let product = if transpose { u.matmul(v) } else { u.matmul_transposed(v) };
        y = y.plus(&product.affine(scale.0, 0.0));
    }
    match inputs.last() {
        Some(other) if residual => y.plus(other),
        _ => y,
    }
}
