//! Joins operations whose intermediate result no one else needs.

use super::rewriter::{Rewriter, Rule, rewrite};
use crate::error::Result;
use crate::graph::{Binary, DType, FrozenGraph, LazyTensor, LowRank, Operation, Scalar};

/// The widest inner product that still counts as low rank.
const MAX_LOW_RANK: usize = 256;

/// Sums and conversions go into the epilogue of the matrix product that feeds them; a loss comes out of its own gradient.
///
/// # Errors
/// An internal error if a replacement does not fit: a bug.
pub fn fuse(graph: &FrozenGraph) -> Result<FrozenGraph> {
    let uses: Vec<usize> = uses(graph);
    let rule: &Rule<'_> = &move |rewriter, index, inputs| match rewriter.node(index).operation {
        Operation::Binary(Binary::Add) => Ok(sum(rewriter, &uses, index, inputs).map(|tensor| vec![tensor])),
        Operation::Cast(DType::F32) => Ok(wide_product(rewriter, &uses, index).map(|tensor| vec![tensor])),
        Operation::ProjectedCrossEntropy { soft_cap } => {
            loss_from_gradient(rewriter, index, inputs, Operation::ProjectedCrossEntropyGrad { soft_cap })
        }
        _ => Ok(None),
    };
    rewrite(graph, rule)
}

pub(super) fn uses(graph: &FrozenGraph) -> Vec<usize> {
    let mut uses: Vec<usize> = graph.consumers().iter().map(Vec::len).collect();
    for &root in graph.roots() {
        uses[root] += 1;
    }
    uses
}

fn sum(rewriter: &Rewriter<'_>, uses: &[usize], index: usize, inputs: &[LazyTensor]) -> Option<LazyTensor> {
    let sides = &rewriter.node(index).inputs;
    let only_here = |side: usize| uses[sides[side]] == 1;
    let pairs = [(1, 0), (0, 1)];
    let low_rank = pairs.into_iter().find_map(|(product, base)| {
        (only_here(0) && only_here(1)).then(|| with_low_rank(rewriter, sides[product], &inputs[base]))?
    });
    low_rank.or_else(|| {
        pairs.into_iter().find_map(|(base, other)| {
            only_here(base).then(|| with_residual(&inputs[base], &inputs[other]))?
        })
    })
}

/// base + u v^T, where `base` is a `Linear` without a low-rank part.
fn with_low_rank(rewriter: &Rewriter<'_>, product: usize, base: &LazyTensor) -> Option<LazyTensor> {
    let node = rewriter.node(product);
    let Operation::MatMul { transpose_left: false, transpose_right, .. } = node.operation else {
        return None;
    };
    let [u, v] = [rewriter.get(node.inputs[0]).ok()?, rewriter.get(node.inputs[1]).ok()?];
    let (operation, mut inputs) = base.definition()?;
    let Operation::Linear { transpose_weight, low_rank: None, residual } = operation else { return None };
    if u.shape().rank() != 2 || u.shape().last() > MAX_LOW_RANK {
        return None;
    }
    inputs.splice(2..2, [u, v]);
    let low_rank = Some(LowRank { scale: Scalar(1.0), transpose: !transpose_right });
    Some(apply(Operation::Linear { transpose_weight, low_rank, residual }, &inputs))
}

/// base + other, where `base` is a `Linear` without a residual.
fn with_residual(base: &LazyTensor, other: &LazyTensor) -> Option<LazyTensor> {
    let (operation, mut inputs) = base.definition()?;
    let Operation::Linear { transpose_weight, low_rank, residual: false } = operation else { return None };
    inputs.push(other.clone());
    Some(apply(Operation::Linear { transpose_weight, low_rank, residual: true }, &inputs))
}

/// A product of bf16 matrices, scaled or not, that only its conversion to f32 reads: it is never rounded.
fn wide_product(rewriter: &Rewriter<'_>, uses: &[usize], index: usize) -> Option<LazyTensor> {
    let mut at = rewriter.node(index).inputs[0];
    let mut scale = None;
    if let Operation::Affine { multiply, add } = rewriter.node(at).operation {
        scale = Some((multiply.0, add.0)).filter(|_| uses[at] == 1);
        at = scale.map(|_| rewriter.node(at).inputs[0])?;
    }
    let node = rewriter.node(at);
    let Operation::MatMul { transpose_left, transpose_right, widen: false } = node.operation else {
        return None;
    };
    if uses[at] > 1 || node.tensor_type().dtype != DType::Bf16 {
        return None;
    }
    let [left, right] = [rewriter.get(node.inputs[0]).ok()?, rewriter.get(node.inputs[1]).ok()?];
    let product = left.then(Operation::MatMul { transpose_left, transpose_right, widen: true }, &[&right]);
    Some(scale.map_or(product.clone(), |(multiply, add)| product.affine(multiply, add)))
}

fn apply(operation: Operation, inputs: &[LazyTensor]) -> LazyTensor {
    let others: Vec<&LazyTensor> = inputs[1..].iter().collect();
    inputs[0].then(operation, &others)
}

/// A loss whose gradient is computed too is the gradient's by-product.
fn loss_from_gradient(
    rewriter: &mut Rewriter<'_>,
    index: usize,
    inputs: &[LazyTensor],
    gradient: Operation,
) -> Result<Option<Vec<LazyTensor>>> {
    let node = rewriter.node(index);
    let twin = (index + 1..rewriter.source.nodes().len()).find(|&later| {
        let other = rewriter.node(later);
        other.operation == gradient && other.inputs[..3] == node.inputs[..]
    });
    let Some(twin) = twin else { return Ok(None) };
    let dloss = rewriter.node(twin).inputs[3];
    if depends_on(rewriter.source, dloss, index) {
        return Ok(None);
    }
    rewriter.rebuild(dloss, &|_, _, _| Ok(None))?;
    let dloss = rewriter.get(dloss)?;
    let gradient = inputs[0].then(gradient, &[&inputs[1], &inputs[2], &dloss]);
    Ok(Some(vec![gradient.output(0)]))
}

pub(super) fn depends_on(graph: &FrozenGraph, index: usize, on: usize) -> bool {
    let mut stack = vec![index];
    let mut seen = vec![false; graph.nodes().len()];
    while let Some(at) = stack.pop() {
        if at == on {
            return true;
        }
        if !std::mem::replace(&mut seen[at], true) {
            stack.extend(graph.nodes()[at].inputs.iter().filter(|&&input| input >= on));
        }
    }
    false
}
