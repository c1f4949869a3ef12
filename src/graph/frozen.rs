//! The immutable arena that autodiff, passes and plan read: dense indices, topological order, no locks.

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};

use super::computation_graph::ComputationGraph;
use super::lazy_tensor::LazyTensor;
use super::node::NodeId;
use super::operation::Operation;
use super::shape_rules::infer;
use super::tensor_type::TensorType;
use crate::error::{Error, Result};

/// One node of a [`FrozenGraph`]; inputs are indices of earlier nodes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FrozenNode {
    pub operation: Operation,
    pub inputs: Box<[usize]>,
    pub outputs: Box<[TensorType]>,
    pub copy: u32,
}

impl FrozenNode {
    /// Type of the only output, or of the first.
    pub fn tensor_type(&self) -> TensorType {
        self.outputs[0]
    }
}

/// A graph that no longer changes. Its order is that of a depth-first walk from the roots, so it depends on the
/// values computed and not on who built them when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrozenGraph {
    nodes: Vec<FrozenNode>,
    ids: Vec<NodeId>,
    roots: Vec<usize>,
}

impl FrozenGraph {
    pub(super) fn collect(graph: &ComputationGraph, roots: &[LazyTensor]) -> Result<Self> {
        let mut frozen = Self { nodes: Vec::new(), ids: Vec::new(), roots: Vec::new() };
        let mut index_of: HashMap<NodeId, usize> = HashMap::new();
        // A node stands on the stack twice: first to push its inputs, then to be placed after them.
        let mut stack: Vec<(NodeId, bool)> = roots.iter().rev().map(|root| (root.node_id(), false)).collect();
        while let Some((id, inputs_placed)) = stack.pop() {
            if index_of.contains_key(&id) {
                continue;
            }
            let node =
                graph.node(id).ok_or_else(|| Error::internal(format!("node {id} is not in its graph")))?;
            if inputs_placed {
                let inputs = node.inputs.iter().map(|input| index_of[input]).collect();
                index_of.insert(id, frozen.nodes.len());
                frozen.ids.push(id);
                frozen.nodes.push(FrozenNode {
                    operation: node.operation,
                    inputs,
                    outputs: node.outputs,
                    copy: node.copy,
                });
            } else {
                stack.push((id, true));
                stack.extend(node.inputs.iter().rev().map(|&input| (input, false)));
            }
        }
        frozen.roots = roots.iter().map(|root| index_of[&root.node_id()]).collect();
        Ok(frozen)
    }

    pub fn nodes(&self) -> &[FrozenNode] {
        &self.nodes
    }

    /// Indices of the values asked for, in the order of asking.
    pub fn roots(&self) -> &[usize] {
        &self.roots
    }

    /// The node of the builder's graph that became `index`.
    pub fn node_id(&self, index: usize) -> NodeId {
        self.ids[index]
    }

    /// Derives every type again and checks the order.
    ///
    /// # Errors
    /// An internal error at the first node that reads a later one or whose type is not what its inputs give.
    pub fn verify(&self) -> Result<()> {
        for (index, node) in self.nodes.iter().enumerate() {
            let earlier = node.inputs.iter().all(|&input| input < index);
            let inputs: Vec<&[TensorType]> = node
                .inputs
                .iter()
                .filter_map(|&input| self.nodes.get(input))
                .map(|n| n.outputs.as_ref())
                .collect();
            let typed = node.inputs.is_empty()
                || infer(&node.operation, &inputs)?.as_slice() == node.outputs.as_ref();
            if !earlier || !typed {
                return Err(Error::internal(format!("node %{index} ({:?}) is malformed", node.operation)));
            }
        }
        Ok(())
    }

    /// A new builder that holds this graph, and its roots, to build on.
    pub fn thaw(&self) -> Vec<LazyTensor> {
        let graph = ComputationGraph::new();
        let mut handles: Vec<LazyTensor> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let inputs: Vec<&LazyTensor> = node.inputs.iter().map(|&input| &handles[input]).collect();
            let t = node.tensor_type();
            handles.push(if inputs.is_empty() {
                graph.leaf(node.operation.clone(), t.shape.dims(), t.dtype)
            } else {
                graph.apply_copy(node.operation.clone(), &inputs, node.copy)
            });
        }
        self.roots.iter().map(|&root| handles[root].clone()).collect()
    }

    /// For every node, the nodes that read it.
    pub fn consumers(&self) -> Vec<Vec<usize>> {
        let mut consumers = vec![Vec::new(); self.nodes.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            for &input in &node.inputs {
                consumers[input].push(index);
            }
        }
        consumers
    }

    /// For every node, whether `root` is computed from it; `root` itself included.
    pub fn ancestors(&self, root: usize) -> Vec<bool> {
        let mut needed = vec![false; self.nodes.len()];
        needed[root] = true;
        for index in (0..=root).rev() {
            if needed[index] {
                self.nodes[index].inputs.iter().for_each(|&input| needed[input] = true);
            }
        }
        needed
    }

    /// The node that computes what `index` names: views are followed to what they view.
    pub fn producer(&self, mut index: usize) -> usize {
        while self.nodes[index].operation.is_view() {
            index = self.nodes[index].inputs[0];
        }
        index
    }

    /// For every node, whether its value can differ between steps.
    pub fn varies(&self) -> Vec<bool> {
        let mut varies = vec![false; self.nodes.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            varies[index] = matches!(node.operation, Operation::Input(_) | Operation::State(_))
                || node.inputs.iter().any(|&input| varies[input]);
        }
        varies
    }

    /// For every node, a number that is equal wherever the same value is computed, in any graph.
    pub fn value_fingerprints(&self) -> Vec<[u8; 32]> {
        let mut prints: Vec<[u8; 32]> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let mut hasher = Fingerprint(blake3::Hasher::new());
            (&node.operation, &node.outputs).hash(&mut hasher);
            node.inputs.iter().for_each(|&input| hasher.write(&prints[input]));
            prints.push(*hasher.0.finalize().as_bytes());
        }
        prints
    }

    /// Equal for graphs that compute the same values in the same way: part of the key of a cached plan.
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut hasher = Fingerprint(blake3::Hasher::new());
        self.nodes.hash(&mut hasher);
        self.roots.hash(&mut hasher);
        *hasher.0.finalize().as_bytes()
    }
}

struct Fingerprint(blake3::Hasher);

impl Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let mut head = [0; 8];
        head.copy_from_slice(&self.0.finalize().as_bytes()[..8]);
        u64::from_le_bytes(head)
    }
}

/// One line a node: `%12 = RmsNorm { .. } (%3, %4) -> f32[512, 576]`.
impl fmt::Display for FrozenGraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, node) in self.nodes.iter().enumerate() {
            write!(f, "%{index} = {:?}(", node.operation)?;
            for (position, input) in node.inputs.iter().enumerate() {
                let separator = if position == 0 { "" } else { ", " };
                write!(f, "{separator}%{input}")?;
            }
            f.write_str(") ->")?;
            for output in &node.outputs {
                write!(f, " {output}")?;
            }
            writeln!(f)?;
        }
        writeln!(f, "roots: {:?}", self.roots)
    }
}
