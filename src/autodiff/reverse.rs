//! The reverse walk over a frozen graph.

use std::collections::HashMap;

use super::vjp::{Application, vjp};
use crate::error::{Error, Result};
use crate::graph::{FrozenGraph, LazyTensor, NodeId, Operation};

/// d loss / d w for every `w` of `wrt`, added to the graph they live in; zeros where the loss does not depend on `w`.
///
/// Only what leads from the loss to `wrt` is differentiated: a frozen weight gets no gradient, and nothing is computed
/// below the lowest trained value.
///
/// # Errors
/// A shape error if `loss` is not one number, or an operation on the way has no derivative.
pub fn gradients(loss: &LazyTensor, wrt: &[LazyTensor]) -> Result<Vec<LazyTensor>> {
    if loss.shape().elements() != 1 {
        return Err(Error::shape(format!(
            "only a single number can be differentiated, not {}",
            loss.shape()
        )));
    }
    let graph = loss.graph();
    let forward = graph.freeze(std::slice::from_ref(loss))?;
    let handles = handles(&forward, loss)?;
    let wanted = reaches(&forward, wrt);
    let mut walk = Walk { gradients: vec![Vec::new(); forward.nodes().len()] };
    walk.add(forward.roots()[0], 0, loss.filled(1.0));
    for index in (0..forward.nodes().len()).rev() {
        if wanted[index] {
            walk.visit(&forward, &handles, &wanted, index)?;
        }
    }
    let position: HashMap<NodeId, usize> =
        (0..forward.nodes().len()).map(|i| (forward.node_id(i), i)).collect();
    let gradient_of = |w: &LazyTensor| {
        let found =
            position.get(&w.node_id()).and_then(|&index| walk.gradients[index].first().cloned().flatten());
        found.unwrap_or_else(|| w.filled(0.0))
    };
    Ok(wrt.iter().map(gradient_of).collect())
}

struct Walk {
    /// For every node, the gradient of each output as far as it is summed up.
    gradients: Vec<Vec<Option<LazyTensor>>>,
}

impl Walk {
    fn add(&mut self, index: usize, output: usize, contribution: LazyTensor) {
        let outputs = &mut self.gradients[index];
        if outputs.len() <= output {
            outputs.resize(output + 1, None);
        }
        let sum = match &outputs[output] {
            Some(so_far) => so_far.plus(&contribution),
            None => contribution,
        };
        outputs[output] = Some(sum);
    }

    fn visit(
        &mut self,
        graph: &FrozenGraph,
        handles: &[LazyTensor],
        wanted: &[bool],
        index: usize,
    ) -> Result<()> {
        if self.gradients[index].iter().all(Option::is_none) {
            return Ok(());
        }
        let node = &graph.nodes()[index];
        if let Operation::Output(output) = node.operation {
            if let Some(gradient) = self.gradients[index][0].clone() {
                self.add(node.inputs[0], output, gradient);
            }
            return Ok(());
        }
        let mut dy = self.gradients[index].clone();
        dy.resize(node.outputs.len(), None);
        let inputs: Vec<&LazyTensor> = node.inputs.iter().map(|&input| &handles[input]).collect();
        let wanted_inputs: Vec<bool> = node.inputs.iter().map(|&input| wanted[input]).collect();
        if !wanted_inputs.contains(&true) {
            return Ok(());
        }
        let application = Application {
            operation: &node.operation,
            inputs: &inputs,
            y: &handles[index],
            dy: &dy,
            wanted: &wanted_inputs,
        };
        for (slot, contribution) in vjp(&application)?.into_iter().enumerate() {
            if let (true, Some(contribution)) = (wanted_inputs[slot], contribution) {
                self.add(node.inputs[slot], 0, contribution);
            }
        }
        Ok(())
    }
}

/// For every node, whether it is in `wrt` or computed from it.
fn reaches(graph: &FrozenGraph, wrt: &[LazyTensor]) -> Vec<bool> {
    let mut reaches = vec![false; graph.nodes().len()];
    for (index, node) in graph.nodes().iter().enumerate() {
        let id = graph.node_id(index);
        reaches[index] =
            wrt.iter().any(|w| w.node_id() == id) || node.inputs.iter().any(|&input| reaches[input]);
    }
    reaches
}

fn handles(graph: &FrozenGraph, loss: &LazyTensor) -> Result<Vec<LazyTensor>> {
    (0..graph.nodes().len())
        .map(|index| {
            loss.graph()
                .handle(graph.node_id(index))
                .ok_or_else(|| Error::internal("a frozen node left its graph"))
        })
        .collect()
}
