//! The concurrent builder: threads add nodes without a lock around the graph.

use std::panic::Location;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::frozen::FrozenGraph;
use super::lazy_tensor::LazyTensor;
use super::node::{GraphNode, NodeId};
use super::operation::Operation;
use super::shape_rules::infer;
use super::tensor_type::{DType, Shape, TensorType};
use crate::error::{Error, Result};

/// A growing graph of interned nodes. Any number of threads may add to it; [`ComputationGraph::freeze`] gives the same
/// arena whatever the order they came in.
#[derive(Debug, Default)]
pub struct ComputationGraph {
    nodes: DashMap<NodeId, GraphNode>,
    interned: DashMap<GraphNode, NodeId>,
    next_node_id: AtomicUsize,
    first_error: OnceLock<Error>,
}

impl ComputationGraph {
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Number of distinct nodes so far.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// A value that the caller supplies at every step.
    #[track_caller]
    pub fn input(self: &Arc<Self>, name: &str, dims: &[usize], dtype: DType) -> LazyTensor {
        self.leaf(Operation::Input(name.into()), dims, dtype)
    }

    /// A weight that never changes.
    #[track_caller]
    pub fn frozen(self: &Arc<Self>, name: &str, dims: &[usize], dtype: DType) -> LazyTensor {
        self.leaf(Operation::Frozen(name.into()), dims, dtype)
    }

    /// A value that persists between steps and that the graph may update.
    #[track_caller]
    pub fn state(self: &Arc<Self>, name: &str, dims: &[usize], dtype: DType) -> LazyTensor {
        self.leaf(Operation::State(name.into()), dims, dtype)
    }

    /// A leaf, whose type cannot be derived from inputs.
    #[track_caller]
    pub fn leaf(self: &Arc<Self>, operation: Operation, dims: &[usize], dtype: DType) -> LazyTensor {
        match Shape::new(dims) {
            Ok(shape) => self.insert(operation, &[], vec![TensorType::new(shape, dtype)], 0),
            Err(error) => self.fail(error, Location::caller()),
        }
    }

    /// Applies an operation; its output types follow from the inputs' types.
    ///
    /// Misfits do not fail here: they are remembered with the caller's file and line, and [`Self::freeze`] returns
    /// the first one, so that model code reads as formulas.
    #[track_caller]
    pub fn apply(self: &Arc<Self>, operation: Operation, inputs: &[&LazyTensor]) -> LazyTensor {
        self.apply_copy(operation, inputs, 0)
    }

    /// Like [`Self::apply`], kept apart from equal nodes by `copy` unless it is 0.
    #[track_caller]
    pub fn apply_copy(
        self: &Arc<Self>,
        operation: Operation,
        inputs: &[&LazyTensor],
        copy: u32,
    ) -> LazyTensor {
        if inputs.iter().any(|input| !Arc::ptr_eq(input.graph(), self)) {
            return self.fail(
                Error::shape(format!("{operation:?} mixes tensors of two graphs")),
                Location::caller(),
            );
        }
        if inputs.iter().any(|input| input.node_id() == NodeId::INVALID) {
            return LazyTensor::invalid(self);
        }
        let types: Vec<&[TensorType]> = inputs.iter().map(|input| input.types()).collect();
        match infer(&operation, &types) {
            Ok(outputs) => {
                let ids: Vec<NodeId> = inputs.iter().map(|input| input.node_id()).collect();
                self.insert(operation, &ids, outputs, copy)
            }
            Err(error) => self.fail(error, Location::caller()),
        }
    }

    fn insert(
        self: &Arc<Self>,
        operation: Operation,
        inputs: &[NodeId],
        outputs: Vec<TensorType>,
        copy: u32,
    ) -> LazyTensor {
        let types: Arc<[TensorType]> = outputs.as_slice().into();
        let node = GraphNode { operation, inputs: inputs.into(), outputs: outputs.into(), copy };
        let id = match self.interned.entry(node) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(free) => {
                let id = NodeId(self.next_node_id.fetch_add(1, Ordering::Relaxed));
                self.nodes.insert(id, free.key().clone());
                free.insert(id);
                id
            }
        };
        LazyTensor::of(self, id, types)
    }

    pub(super) fn fail(self: &Arc<Self>, error: Error, at: &Location<'_>) -> LazyTensor {
        let _ = self.first_error.set(error.context(format!("{}:{}", at.file(), at.line())));
        LazyTensor::invalid(self)
    }

    /// A handle on a node, if it is in this graph.
    pub fn handle(self: &Arc<Self>, id: NodeId) -> Option<LazyTensor> {
        let types = self.nodes.get(&id)?.outputs.as_ref().into();
        Some(LazyTensor::of(self, id, types))
    }

    pub(super) fn node(&self, id: NodeId) -> Option<GraphNode> {
        self.nodes.get(&id).map(|node| node.clone())
    }

    /// Everything that `roots` need, as an immutable arena in topological order.
    ///
    /// # Errors
    /// The first misfit of shapes or dtypes that building met.
    pub fn freeze(self: &Arc<Self>, roots: &[LazyTensor]) -> Result<FrozenGraph> {
        if let Some(error) = self.first_error.get() {
            return Err(error.clone());
        }
        FrozenGraph::collect(self, roots)
    }
}
