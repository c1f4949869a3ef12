//! Handles on values that are not computed yet.

use std::sync::Arc;

use super::computation_graph::ComputationGraph;
use super::node::NodeId;
use super::operation::Operation;
use super::tensor_type::{DType, Shape, TensorType};

/// A value of a graph, to be built on or computed by the executor. Cloning copies the handle only.
#[derive(Debug, Clone)]
pub struct LazyTensor {
    graph: Arc<ComputationGraph>,
    node: NodeId,
    types: Arc<[TensorType]>,
}

impl LazyTensor {
    pub(super) fn of(graph: &Arc<ComputationGraph>, node: NodeId, types: Arc<[TensorType]>) -> Self {
        Self { graph: graph.clone(), node, types }
    }

    /// What an operation that does not fit returns; the graph remembers the error.
    pub(super) fn invalid(graph: &Arc<ComputationGraph>) -> Self {
        let nothing = TensorType { shape: Shape::SCALAR, dtype: DType::F32 };
        Self { graph: graph.clone(), node: NodeId::INVALID, types: Arc::new([nothing]) }
    }

    pub fn graph(&self) -> &Arc<ComputationGraph> {
        &self.graph
    }

    pub fn node_id(&self) -> NodeId {
        self.node
    }

    pub(super) fn types(&self) -> &[TensorType] {
        &self.types
    }

    /// The operation that makes this value, and its inputs.
    pub fn definition(&self) -> Option<(Operation, Vec<Self>)> {
        let node = self.graph.node(self.node)?;
        let inputs = node.inputs.iter().map(|&id| self.graph.handle(id)).collect::<Option<Vec<_>>>()?;
        Some((node.operation, inputs))
    }

    pub fn output_count(&self) -> usize {
        self.types.len()
    }

    pub fn shape(&self) -> Shape {
        self.types[0].shape
    }

    pub fn dims(&self) -> &[usize] {
        self.types[0].shape.dims()
    }

    pub fn dtype(&self) -> DType {
        self.types[0].dtype
    }
}
