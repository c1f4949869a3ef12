//! Which part of a training step a batch of operations belongs to.

use super::cost::cost;
use crate::graph::{FrozenGraph, Operation};

/// Part of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Up to the loss.
    Forward,
    /// From the loss to the gradients.
    Backward,
    /// Clipping and the update of states.
    Optimizer,
}

/// The stage of each batch: that of its most expensive operation. The graph's first root is the loss.
pub(super) fn stages(graph: &FrozenGraph, batches: &[Vec<usize>]) -> Vec<Stage> {
    let nodes = graph.nodes();
    let forward = graph.roots().first().map_or_else(Vec::new, |&loss| graph.ancestors(loss));
    let mut optimizer = vec![false; nodes.len()];
    for (index, node) in nodes.iter().enumerate() {
        // The norm that gradients are clipped by, all that is computed from it, and updates.
        let clips = matches!(node.operation, Operation::SumOfSquares);
        optimizer[index] = clips
            || node.operation.updates_state()
            || node.inputs.iter().any(|&input| optimizer[input]) && !forward[index];
    }
    let stage = |&index: &usize| match (optimizer[index], forward[index]) {
        (true, _) => Stage::Optimizer,
        (false, true) => Stage::Forward,
        (false, false) => Stage::Backward,
    };
    let weight = |&index: &usize| {
        let cost = cost(graph, index);
        cost.flops + cost.bytes
    };
    let dearest = |batch: &Vec<usize>| {
        batch
            .iter()
            .max_by(|left, right| weight(left).total_cmp(&weight(right)))
            .map_or(Stage::Forward, stage)
    };
    batches.iter().map(dearest).collect()
}
