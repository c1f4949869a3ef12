//! Arithmetic and traffic of a step, with what the data decides.

use crate::graph::{FrozenGraph, Operation};
use crate::plan::{Cost, cost, runs_every_step};

/// [`cost`] of the node `index`, where only the share `supervised` of the positions goes through the output projection.
pub(super) fn step_cost(graph: &FrozenGraph, index: usize, supervised: f64) -> Cost {
    let whole = cost(graph, index);
    match graph.nodes()[index].operation {
        Operation::ProjectedCrossEntropy
        | Operation::ProjectedCrossEntropyGrad
        | Operation::ProjectedCrossEntropyWeightGrad => Cost { flops: whole.flops * supervised, ..whole },
        _ => whole,
    }
}

/// What the step needs before a pass has changed its graph: nothing is computed twice to save memory.
pub(super) fn needed_flops(graph: &FrozenGraph, supervised: f64) -> f64 {
    let runs = runs_every_step(graph, true);
    (0..runs.len()).filter(|&index| runs[index]).map(|index| step_cost(graph, index, supervised).flops).sum()
}
