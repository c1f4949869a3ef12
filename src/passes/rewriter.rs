//! Copies a graph node by node, with rules that replace some of them.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::graph::{ComputationGraph, FrozenGraph, FrozenNode, LazyTensor, Operation};

/// Rebuilds a graph. Interning makes equal nodes one, and freezing drops what no root needs.
pub(super) struct Rewriter<'a> {
    pub source: &'a FrozenGraph,
    graph: Arc<ComputationGraph>,
    /// The outputs that each source node became; one entry where the node stays whole.
    rebuilt: Vec<Option<Vec<LazyTensor>>>,
}

/// Replaces a node, given its rebuilt inputs; `None` keeps it.
pub(super) type Rule<'r> =
    dyn Fn(&mut Rewriter<'_>, usize, &[LazyTensor]) -> Result<Option<Vec<LazyTensor>>> + 'r;

/// Applies `rule` to every node in topological order.
pub(super) fn rewrite(source: &FrozenGraph, rule: &Rule<'_>) -> Result<FrozenGraph> {
    let mut rewriter =
        Rewriter { source, graph: ComputationGraph::new(), rebuilt: vec![None; source.nodes().len()] };
    for index in 0..source.nodes().len() {
        rewriter.rebuild(index, rule)?;
    }
    let roots = source.roots().iter().map(|&root| rewriter.get(root)).collect::<Result<Vec<_>>>()?;
    rewriter.graph.freeze(&roots)
}

impl Rewriter<'_> {
    /// Rebuilds a node and, before it, whatever it needs that has not been rebuilt.
    pub fn rebuild(&mut self, index: usize, rule: &Rule<'_>) -> Result<()> {
        if self.rebuilt[index].is_some() {
            return Ok(());
        }
        let node = &self.source.nodes()[index];
        if let Operation::Output(output) = node.operation
            && let Some(outputs) = self.rebuilt[node.inputs[0]].clone()
        {
            self.rebuilt[index] = Some(vec![select(&outputs, output)?]);
            return Ok(());
        }
        for &input in &node.inputs {
            self.rebuild(input, rule)?;
        }
        let inputs = node.inputs.iter().map(|&input| self.get(input)).collect::<Result<Vec<_>>>()?;
        let outputs = match rule(self, index, &inputs)? {
            Some(outputs) => outputs,
            None => vec![self.copy(node, &inputs)],
        };
        self.rebuilt[index] = Some(outputs);
        Ok(())
    }

    /// What a source node became.
    pub fn get(&self, index: usize) -> Result<LazyTensor> {
        let outputs = self.rebuilt[index].as_ref();
        outputs
            .and_then(|o| o.first())
            .cloned()
            .ok_or_else(|| Error::internal("a pass read a node before its time"))
    }

    pub fn node(&self, index: usize) -> &FrozenNode {
        &self.source.nodes()[index]
    }

    pub fn graph(&self) -> &Arc<ComputationGraph> {
        &self.graph
    }

    fn copy(&self, node: &FrozenNode, inputs: &[LazyTensor]) -> LazyTensor {
        if inputs.is_empty() {
            let t = node.tensor_type();
            return self.graph.leaf(node.operation.clone(), t.shape.dims(), t.dtype);
        }
        let inputs: Vec<&LazyTensor> = inputs.iter().collect();
        self.graph.apply_copy(node.operation.clone(), &inputs, node.copy)
    }
}

/// A node that stayed whole still has all its outputs; one that was replaced has a tensor for each.
fn select(outputs: &[LazyTensor], output: usize) -> Result<LazyTensor> {
    match outputs {
        [whole] if whole.output_count() > 1 => Ok(whole.output(output)),
        _ => outputs
            .get(output)
            .cloned()
            .ok_or_else(|| Error::internal(format!("a pass lost output {output}"))),
    }
}
