//! Nodes and their identities.

use std::fmt;

use super::operation::Operation;
use super::tensor_type::TensorType;

/// Names a node of one [`super::ComputationGraph`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(super) usize);

impl NodeId {
    /// Stands for a node that could not be built; the graph remembers why.
    pub(super) const INVALID: Self = Self(usize::MAX);

    pub fn index(self) -> usize {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0)
    }
}

/// An operation applied to inputs. Two equal nodes are the same value, so a graph keeps only one of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GraphNode {
    pub operation: Operation,
    pub inputs: Box<[NodeId]>,
    /// One type per output; `Operation::Output` selects among several.
    pub outputs: Box<[TensorType]>,
    /// 0, or the number of this recomputation: keeps a rematerialized node apart from the original.
    pub copy: u32,
}
