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
        let reads_weight = matches!(
            operation,
            Operation::Linear { .. }
                | Operation::ProjectedCrossEntropy
                | Operation::ProjectedCrossEntropyGrad
                | Operation::ProjectedCrossEntropyWeightGrad
        );
        if !reads_weight {
            return Ok(None);
        }
        let mut replaced = inputs.to_vec();
        replaced[1] = inputs[1].then(Operation::Pack, &[]);
        let others: Vec<&LazyTensor> = replaced[1..].iter().collect();
        Ok(Some(vec![replaced[0].then(operation, &others)]))
    })
}
