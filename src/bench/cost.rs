//! Arithmetic and traffic of a step, with what the data decides.

use crate::graph::{FrozenGraph, Operation};
use crate::plan::{Cost, cost};

/// [`cost`] of the node `index`, where only the share `supervised` of the positions goes through the output projection.
pub(super) fn step_cost(graph: &FrozenGraph, index: usize, supervised: f64) -> Cost {
    let whole = cost(graph, index);
    match graph.nodes()[index].operation {
        Operation::ProjectedCrossEntropy { .. }
        | Operation::ProjectedCrossEntropyGrad { .. }
        | Operation::ProjectedCrossEntropyWeightGrad { .. } => {
            Cost { flops: whole.flops * supervised, ..whole }
        }
        _ => whole,
    }
}
