//! Algebra on plain operations: identities vanish, chains of the same kind become one, constants are folded.

use super::rewriter::{Rewriter, rewrite};
use crate::error::Result;
use crate::graph::{Binary, FrozenGraph, LazyTensor, Operation, Scalar};

/// # Errors
/// An internal error if a replacement does not fit: a bug.
pub fn simplify(graph: &FrozenGraph) -> Result<FrozenGraph> {
    rewrite(graph, &|rewriter, index, inputs| Ok(rule(rewriter, index, inputs).map(|tensor| vec![tensor])))
}

fn rule(rewriter: &Rewriter<'_>, index: usize, inputs: &[LazyTensor]) -> Option<LazyTensor> {
    let node = rewriter.node(index);
    let x = inputs.first()?;
    if let Some(value) = constant(rewriter, index, 0)
        && let Some(folded) = fold(&node.operation, value)
    {
        let t = node.tensor_type();
        return Some(rewriter.graph().leaf(Operation::Constant(Scalar(folded)), t.shape.dims(), t.dtype));
    }
    match &node.operation {
        Operation::Affine { multiply: Scalar(m), add: Scalar(a) } => affine(rewriter, index, x, *m, *a),
        Operation::Reshape(shape) if *shape == x.shape() => Some(x.clone()),
        Operation::Reshape(shape) => match &before(rewriter, index).operation {
            Operation::Reshape(_) => Some(inner(rewriter, index)?.reshape(shape.dims())),
            _ => None,
        },
        // Gradients have been built by now.
        Operation::Detach => Some(x.clone()),
        Operation::BroadcastTo(shape) if *shape == x.shape() => Some(x.clone()),
        Operation::Cast(dtype) if *dtype == x.dtype() => Some(x.clone()),
        Operation::Slice { length, axis, .. } if *length == x.dims()[*axis] => Some(x.clone()),
        Operation::Concat { .. } if inputs.len() == 1 => Some(x.clone()),
        Operation::Permute(axes) if (0u8..).zip(axes.iter()).take(x.shape().rank()).all(|(i, &a)| i == a) => {
            Some(x.clone())
        }
        Operation::Binary(kind) => {
            binary(*kind, x, &inputs[1], constant(rewriter, index, 0), constant(rewriter, index, 1))
        }
        _ => None,
    }
}

/// The value of an operation on a tensor filled with one number.
fn fold(operation: &Operation, value: f64) -> Option<f64> {
    match operation {
        Operation::Affine { multiply, add } => Some(value * multiply.0 + add.0),
        Operation::Reshape(_)
        | Operation::BroadcastTo(_)
        | Operation::Permute(_)
        | Operation::Slice { .. } => Some(value),
        Operation::Cast(dtype) if dtype.is_float() => Some(value),
        _ => None,
    }
}

fn affine(rewriter: &Rewriter<'_>, index: usize, x: &LazyTensor, m: f64, a: f64) -> Option<LazyTensor> {
    if m == 1.0 && a == 0.0 {
        return Some(x.clone());
    }
    match &before(rewriter, index).operation {
        Operation::Affine { multiply: Scalar(m0), add: Scalar(a0) } => {
            Some(inner(rewriter, index)?.affine(m * m0, m * a0 + a))
        }
        _ => None,
    }
}

fn binary(
    kind: Binary,
    left: &LazyTensor,
    right: &LazyTensor,
    left_constant: Option<f64>,
    right_constant: Option<f64>,
) -> Option<LazyTensor> {
    match (kind, left_constant, right_constant) {
        (Binary::Add, _, Some(0.0)) | (Binary::Subtract, _, Some(0.0)) => Some(left.clone()),
        (Binary::Add, Some(0.0), _) => Some(right.clone()),
        (Binary::Add, _, Some(c)) => Some(left.affine(1.0, c)),
        (Binary::Multiply, _, Some(c)) => Some(left.affine(c, 0.0)),
        (Binary::Multiply, Some(c), _) => Some(right.affine(c, 0.0)),
        (Binary::Divide, _, Some(1.0)) => Some(left.clone()),
        _ => None,
    }
}

/// The source node that feeds the first input.
fn before<'a>(rewriter: &'a Rewriter<'_>, index: usize) -> &'a crate::graph::FrozenNode {
    rewriter.node(rewriter.node(index).inputs[0])
}

/// The rebuilt first input of the node that feeds the first input.
fn inner(rewriter: &Rewriter<'_>, index: usize) -> Option<LazyTensor> {
    rewriter.get(before(rewriter, index).inputs[0]).ok()
}

fn constant(rewriter: &Rewriter<'_>, index: usize, slot: usize) -> Option<f64> {
    let &input = rewriter.node(index).inputs.get(slot)?;
    match rewriter.node(input).operation {
        Operation::Constant(Scalar(value)) => Some(value),
        _ => None,
    }
}
