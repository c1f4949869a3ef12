//! The launches of a batch.

use crate::error::Result;
use crate::graph::TensorType;
use crate::kernels::metal::lower::{self, Applied, Lowering, Step, lower, lower_together};
use crate::plan::Plan;

/// Operations of a batch with the launches that compute them, most often one.
pub(super) struct Lowered {
    /// Their nodes; places of the launches are numbered through all of them.
    pub nodes: Vec<usize>,
    pub lowering: Lowering,
}

impl Lowered {
    /// Whether the device's own product writes the first output: it has to begin its buffer.
    pub fn product(&self) -> bool {
        let output = |step: &Step| matches!(step, Step::Product { y: lower::Place::Output(_), .. });
        self.lowering.steps.iter().any(output)
    }
}

/// Operations that may share launches, at most.
const TOGETHER: usize = 3;

/// Lowers the operations of a batch, thin products together.
pub(super) fn lower_batch(plan: &Plan, batch: &[usize]) -> Result<Vec<Lowered>> {
    let nodes = plan.graph.nodes();
    let types = |index: usize| -> Vec<TensorType> {
        nodes[index].inputs.iter().map(|&input| nodes[input].tensor_type()).collect()
    };
    let mut lowered: Vec<Lowered> = Vec::with_capacity(batch.len());
    for &index in batch {
        let node = &nodes[index];
        let joined =
            lowered.iter_mut().rev().filter(|other| other.nodes.len() < TOGETHER).find_map(|other| {
                let members: Vec<usize> = other.nodes.iter().copied().chain([index]).collect();
                let inputs: Vec<Vec<TensorType>> = members.iter().map(|&member| types(member)).collect();
                let applied = members.iter().zip(&inputs).map(|(&member, inputs)| Applied {
                    operation: &nodes[member].operation,
                    inputs,
                    outputs: &nodes[member].outputs,
                });
                let lowering = lower_together(&applied.collect::<Vec<_>>()).transpose()?;
                Some(lowering.map(|lowering| *other = Lowered { nodes: members, lowering }))
            });
        match joined {
            Some(joined) => joined?,
            None => lowered.push(Lowered {
                nodes: vec![index],
                lowering: lower(&node.operation, &types(index), &node.outputs)?,
            }),
        }
    }
    Ok(lowered)
}
