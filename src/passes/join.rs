//! Joins gradients with what stands before or after them: that of a gated unit with the matrix product that only it
//! reads, that of a norm with the sum that only reads it.

use super::fuse::{depends_on, uses};
use super::rewriter::{Rewriter, rewrite};
use crate::error::Result;
use crate::graph::{Binary, FrozenGraph, GateFunction, LazyTensor, Operation};

/// The product goes into the gated unit's gradient a block at a time and is never written. A unit that is recomputed for
/// the backward pass comes out of the same operation, so this pass belongs behind rematerialization.
///
/// # Errors
/// An internal error if a replacement does not fit: a bug.
pub fn join(graph: &FrozenGraph) -> Result<FrozenGraph> {
    let uses = uses(graph);
    rewrite(graph, &|rewriter, index, inputs| rule(&uses, rewriter, index, inputs))
}

fn rule(
    uses: &[usize],
    rewriter: &mut Rewriter<'_>,
    index: usize,
    inputs: &[LazyTensor],
) -> Result<Option<Vec<LazyTensor>>> {
    match rewriter.node(index).operation {
        Operation::Binary(Binary::Add) => Ok(with_residual(rewriter, uses, index, inputs)),
        _ => gated(uses, rewriter, index),
    }
}

/// dx + other, where `dx` is the gradient of a norm without a residual.
fn with_residual(
    rewriter: &Rewriter<'_>,
    uses: &[usize],
    index: usize,
    inputs: &[LazyTensor],
) -> Option<Vec<LazyTensor>> {
    let sides = &rewriter.node(index).inputs;
    [(0, 1), (1, 0)].into_iter().find_map(|(dx, other)| {
        let (operation, mut of) = inputs[dx].definition()?;
        let Operation::RmsNormGrad { epsilon, weight_gradient: false, residual: false } = operation else {
            return None;
        };
        if uses[sides[dx]] != 1 {
            return None;
        }
        of.push(inputs[other].clone());
        let joined = Operation::RmsNormGrad { epsilon, weight_gradient: false, residual: true };
        let others: Vec<&LazyTensor> = of[1..].iter().collect();
        Some(vec![of[0].then(joined, &others)])
    })
}

fn gated(uses: &[usize], rewriter: &mut Rewriter<'_>, index: usize) -> Result<Option<Vec<LazyTensor>>> {
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
        rewriter.rebuild(input, &|rewriter, index, inputs| rule(uses, rewriter, index, inputs))?;
        inputs.push(rewriter.get(input)?);
    }
    let operation = Operation::LinearGatedGrad { transpose_weight, low_rank, function, value };
    let others: Vec<&LazyTensor> = inputs[1..].iter().collect();
    let joined = inputs[0].then(operation, &others);
    Ok(Some((0..if value { 3 } else { 2 }).map(|output| joined.output(output)).collect()))
}
