//! Mixtures of experts.

use super::{Lowering, Node, Place, extent};
use crate::error::{Error, Result};
use crate::graph::RouteSide;
use crate::kernels::metal::launch;
use crate::kernels::metal::{ExpertNumbers, RouteNumbers};

use Place::{Input, Output};

/// Counts of pairs are exact in f32 up to here.
const MOST_PAIRS: usize = 1 << 24;

/// (scores) -> one side of the pairs
pub fn route(node: &Node<'_>, chosen: usize, side: RouteSide, to: &mut Lowering) -> Result<()> {
    let scores = node.input(0)?.shape;
    let pairs = scores.rows() * chosen;
    if pairs > MOST_PAIRS {
        let most = "use a smaller batch";
        return Err(Error::device(format!("{pairs} pairs of tokens and experts are too many")).hint(most));
    }
    let spec = RouteNumbers {
        tokens: extent(scores.rows())?,
        experts: extent(scores.last())?,
        chosen: extent(chosen)?,
        of_experts: (side == RouteSide::Experts).into(),
    };
    let choices = to.scratch(size_of::<u32>() * pairs);
    to.launch(launch::choose_experts(spec), [Input(0), choices].map(Into::into));
    to.launch(launch::sort_pairs(spec), [choices, Output(0)].map(Into::into));
    Ok(())
}

/// (x, weights, expert of each row) -> y
pub fn linear(node: &Node<'_>, transpose_weight: bool, to: &mut Lowering) -> Result<()> {
    let (x, weight, y) = (node.input(0)?.shape, node.input(1)?.shape, node.output(0)?.shape);
    extent(x.elements().max(y.elements()))?;
    let spec = ExpertNumbers {
        rows: extent(x.rows())?,
        inputs: extent(x.last())?,
        outputs: extent(y.last())?,
        experts: extent(weight.dims().first().copied().unwrap_or(0))?,
        transpose: transpose_weight.into(),
    };
    to.launch(launch::expert_linear(spec), [Input(0), Input(1), Input(2), Output(0)].map(Into::into));
    Ok(())
}

/// (dy, x, expert of each row) -> dweights
pub fn weight_gradient(node: &Node<'_>, experts: usize, to: &mut Lowering) -> Result<()> {
    let (dy, x) = (node.input(0)?.shape, node.input(1)?.shape);
    extent(x.elements().max(dy.elements()))?;
    let spec = ExpertNumbers {
        rows: extent(x.rows())?,
        inputs: extent(x.last())?,
        outputs: extent(dy.last())?,
        experts: extent(experts)?,
        transpose: 0,
    };
    let bound = [Input(0), Input(1), Input(2), Output(0)].map(Into::into);
    to.launch(launch::expert_weight_gradient(spec), bound);
    Ok(())
}
