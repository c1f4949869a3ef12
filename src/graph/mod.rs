//! The lazy computation graph: nodes, shapes and the handles that build them.

mod operation;
mod tensor_type;

pub use operation::{
    AdamWSpec, AttentionSpec, Binary, IGNORE_TARGET, LowRank, Operation, Reduction, RopeTable, RopeTableKind,
    Unary,
};
pub use tensor_type::{DType, MAX_RANK, Scalar, Shape, TensorType};
