//! Lays weight matrices out for the CPU's matrix kernels.
//!
//! Packing a frozen weight does not depend on the step's inputs, so the executor does it once and keeps the result.

use super::rewriter::rewrite;
use crate::error::Result;
use crate::graph::{FrozenGraph, LazyTensor, Operation};

/// Puts a `Pack` in front of every weight that a fused matrix operation reads. A table that is packed for the output
/// projection is embedded from its packed form, so that the other one need not be kept.
///
/// # Errors
/// An internal error if a replacement does not fit: a bug.
pub fn layout(graph: &FrozenGraph) -> Result<FrozenGraph> {
    let mut packed = vec![false; graph.nodes().len()];
    for node in graph.nodes().iter().filter(|node| reads_weight(&node.operation)) {
        packed[node.inputs[1]] = matches!(graph.nodes()[node.inputs[1]].operation, Operation::Frozen(_));
    }
    rewrite(graph, &|rewriter, index, inputs| {
        let node = rewriter.node(index);
        let (operation, copy) = (node.operation.clone(), node.copy);
        if operation == Operation::Embedding && packed[node.inputs[0]] {
            let table = inputs[0].then(Operation::Pack, &[]);
            let rows = [&table, &inputs[1]];
            return Ok(Some(vec![rewriter.graph().apply_copy(Operation::PackedEmbedding, &rows, copy)]));
        }
        if !reads_weight(&operation) {
            return Ok(None);
        }
        let mut replaced = inputs.to_vec();
        replaced[1] = inputs[1].then(Operation::Pack, &[]);
        let replaced: Vec<&LazyTensor> = replaced.iter().collect();
        Ok(Some(vec![rewriter.graph().apply_copy(operation, &replaced, copy)]))
    })
}

/// Whether the second input is a weight matrix in panels.
fn reads_weight(operation: &Operation) -> bool {
    use Operation as Op;
    matches!(
        operation,
        Op::Linear { .. }
            | Op::ProjectedCrossEntropy { .. }
            | Op::ProjectedCrossEntropyGrad { .. }
            | Op::ProjectedCrossEntropyWeightGrad { .. }
    )
}
