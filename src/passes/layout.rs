//! Lays weight matrices out for the CPU's matrix kernels.
//!
//! Packing a frozen weight does not depend on the step's inputs, so the executor does it once and keeps the result.

use super::rewriter::rewrite;
use crate::error::Result;
use crate::graph::{FrozenGraph, LazyTensor, Operation};

/// Puts a `Pack` in front of every weight that a fused matrix operation reads.
///
/// # Errors
/// An internal error if a replacement does not fit: a bug.
pub fn layout(graph: &FrozenGraph) -> Result<FrozenGraph> {
    rewrite(graph, &|rewriter, index, inputs| {
        let operation = rewriter.node(index).operation.clone();
        let pack = |transpose_weight| inputs[1].then(Operation::Pack { transpose_weight }, &[]);
        let mut replaced = inputs.to_vec();
        match operation {
            Operation::Linear { transpose_weight, .. } => replaced[1] = pack(transpose_weight),
            Operation::ProjectedCrossEntropy | Operation::ProjectedCrossEntropyWeightGrad => {
                replaced[1] = pack(false)
            }
            Operation::ProjectedCrossEntropyGrad => {
                replaced[1] = pack(false);
                replaced.push(pack(true));
            }
            _ => return Ok(None),
        }
        let others: Vec<&LazyTensor> = replaced[1..].iter().collect();
        Ok(Some(vec![replaced[0].then(operation, &others)]))
    })
}
