//! Trades arithmetic for memory: values of the forward pass are computed again where the backward pass reads them
//! (Chen et al. 2016, arXiv:1604.06174).

use std::cell::RefCell;
use std::collections::HashMap;

use super::rewriter::{Rewriter, rewrite};
use crate::error::Result;
use crate::graph::{FrozenGraph, LazyTensor};

/// The tag of nodes that are computed again.
const RECOMPUTED: u32 = 1;

/// Gives everything that does not lead to the first root (the loss) copies of its own of the `chosen` nodes.
///
/// # Errors
/// An internal error if a replacement does not fit: a bug.
pub fn rematerialize(graph: &FrozenGraph, chosen: &[bool]) -> Result<FrozenGraph> {
    let Some(&loss) = graph.roots().first() else { return Ok(graph.clone()) };
    let forward = graph.ancestors(loss);
    let copies = RefCell::new(HashMap::new());
    rewrite(graph, &|rewriter, index, inputs| {
        let node = &graph.nodes()[index];
        let late = |&input: &usize| {
            let producer = graph.producer(input);
            !forward[index] && forward[producer] && chosen[producer]
        };
        if !node.inputs.iter().any(late) {
            return Ok(None);
        }
        let inputs = node.inputs.iter().zip(inputs).map(|(&input, kept)| match late(&input) {
            true => again(rewriter, chosen, input, &mut copies.borrow_mut()),
            false => Ok(kept.clone()),
        });
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        let inputs: Vec<&LazyTensor> = inputs.iter().collect();
        Ok(Some(vec![rewriter.graph().apply_copy(node.operation.clone(), &inputs, node.copy)]))
    })
}

/// The copy of a chosen node or of a view of one; any other node is what it was.
fn again(
    rewriter: &Rewriter<'_>,
    chosen: &[bool],
    index: usize,
    copies: &mut HashMap<usize, LazyTensor>,
) -> Result<LazyTensor> {
    if !chosen[rewriter.source.producer(index)] {
        return rewriter.get(index);
    }
    if let Some(copy) = copies.get(&index) {
        return Ok(copy.clone());
    }
    let node = rewriter.node(index);
    let inputs = node.inputs.iter().map(|&input| again(rewriter, chosen, input, copies));
    let inputs = inputs.collect::<Result<Vec<_>>>()?;
    let inputs: Vec<&LazyTensor> = inputs.iter().collect();
    let copy = rewriter.graph().apply_copy(node.operation.clone(), &inputs, RECOMPUTED);
    copies.insert(index, copy.clone());
    Ok(copy)
}
