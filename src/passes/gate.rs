//! Joins the gradient of a gated unit with the matrix product that only it reads.

use super::fuse::{depends_on, uses};
use super::rewriter::{Rewriter, rewrite};
use crate::error::Result;
use crate::graph::{FrozenGraph, GateFunction, LazyTensor, Operation};

/// The product goes into the gradient a block at a time and is never written. A gated unit that is recomputed for the
/// backward pass comes out of the same operation, so this pass belongs behind rematerialization.
///
/// # Errors
/// An internal error if a replacement does not fit: a bug.
pub fn gate(graph: &FrozenGraph) -> Result<FrozenGraph> {
    let uses = uses(graph);
    rewrite(graph, &|rewriter, index, _| rule(&uses, rewriter, index))
}

fn rule(uses: &[usize], rewriter: &mut Rewriter<'_>, index: usize) -> Result<Option<Vec<LazyTensor>>> {
    let graph = rewriter.source;
    let node = &graph.nodes()[index];
    let (function, gradient) = match node.operation {
        Operation::SwiGlu => (GateFunction::Silu, Operation::SwiGluGrad),
        Operation::GeGlu => (GateFunction::GeluTanh, Operation::GeGluGrad),
        Operation::SwiGluGrad => return joined(uses, rewriter, (index, GateFunction::Silu)),
        Operation::GeGluGrad => return joined(uses, rewriter, (index, GateFunction::GeluTanh)),
        _ => return Ok(None),
    };
    let twin = (0..graph.nodes().len()).find(|&other| {
        let other = &graph.nodes()[other];
        other.operation == gradient && other.inputs[..2] == node.inputs[..]
    });
    let Some(twin) = twin.filter(|&twin| !depends_on(graph, twin, index)) else { return Ok(None) };
    let outputs = joined(uses, rewriter, (twin, function))?;
    Ok(outputs.and_then(|outputs| outputs.get(2).map(|value| vec![value.clone()])))
}

/// The outputs of the joined operation, where the gradient at an index and its product allow it.
fn joined(
    uses: &[usize],
    rewriter: &mut Rewriter<'_>,
    (index, function): (usize, GateFunction),
) -> Result<Option<Vec<LazyTensor>>> {
    let graph = rewriter.source;
    let [gate, up, product] = graph.nodes()[index].inputs[..] else { return Ok(None) };
    let Operation::Linear { transpose_weight, low_rank, residual: false } = graph.nodes()[product].operation
    else {
        return Ok(None);
    };
    if uses[product] != 1 {
        return Ok(None);
    }
    let unit = match function {
        GateFunction::Silu => Operation::SwiGlu,
        GateFunction::GeluTanh => Operation::GeGlu,
    };
    let value = graph.nodes().iter().enumerate().any(|(other, node)| {
        node.operation == unit && node.inputs[..] == [gate, up] && !depends_on(graph, index, other)
    });
    let mut inputs = Vec::new();
    for &input in graph.nodes()[product].inputs.iter().chain([&gate, &up]) {
        rewriter.rebuild(input, &|rewriter, index, _| rule(uses, rewriter, index))?;
        inputs.push(rewriter.get(input)?);
    }
    let operation = Operation::LinearGatedGrad { transpose_weight, low_rank, function, value };
    let others: Vec<&LazyTensor> = inputs[1..].iter().collect();
    let joined = inputs[0].then(operation, &others);
    Ok(Some((0..if value { 3 } else { 2 }).map(|output| joined.output(output)).collect()))
}
