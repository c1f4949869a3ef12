//! The lazy computation graph: nodes, shapes and the handles that build them.

mod computation_graph;
mod experts;
mod frozen;
mod fused;
mod lazy_tensor;
mod node;
mod operation;
mod plain;
mod shape_rules;
mod tensor_type;

pub use computation_graph::ComputationGraph;
pub use frozen::{FrozenGraph, FrozenNode};
pub use lazy_tensor::LazyTensor;
pub use node::{GraphNode, NodeId};
pub use operation::{
    AdamWSpec, AttentionSpec, Binary, GateFunction, IGNORE_TARGET, LowRank, Operation, Reduction, RopeTable,
    RopeTableKind, RouteSide, Unary,
};
pub use tensor_type::{DType, MAX_RANK, Scalar, Shape, TensorType};
