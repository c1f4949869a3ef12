//! From an operation and its operands to a kernel: one exhaustive match over `Operation`.

mod experts;
mod fused;
mod matrix;
mod plain;

use super::{Kernel, Operand};
use crate::error::{Error, Result};
use crate::graph::{DType, Operation};

pub use matrix::packed_bytes;

/// Binds the kernel of `operation`. A state that is updated is both the first input and the only output.
///
/// # Errors
/// A device error where the CPU has no kernel for the operation in this dtype; an internal error if the operands do
/// not fit the operation.
pub fn build(operation: &Operation, inputs: &[Operand], outputs: &[Operand]) -> Result<Box<dyn Kernel>> {
    use Operation as Op;
    let at = Binding { operation, inputs, outputs };
    match operation {
        Op::Input(_) | Op::Frozen(_) | Op::State(_) | Op::Output(_) => {
            Err(Error::internal(format!("{operation:?} is not computed")))
        }
        Op::Cast(_) => plain::cast(&at),
        Op::Constant(_)
        | Op::RopeTable(_)
        | Op::Unary(_)
        | Op::Binary(_)
        | Op::Affine { .. }
        | Op::Reshape(_)
        | Op::Detach
        | Op::BroadcastTo(_)
        | Op::Permute(_)
        | Op::Slice { .. }
        | Op::Concat { .. }
        | Op::Reduce { .. }
        | Op::Embedding
        | Op::ScatterRows { .. }
        | Op::TakeLast
        | Op::ScatterLast { .. }
        | Op::AttentionMask { .. }
        | Op::CacheMask { .. }
        | Op::DropoutMask { .. }
        | Op::Assign
        | Op::WriteRows => match at.output(0)?.tensor.dtype {
            DType::F32 => plain::build::<f32>(&at),
            DType::F64 => plain::build::<f64>(&at),
            DType::Bf16 => plain::build::<half::bf16>(&at),
            DType::U32 => Err(at.unsupported()),
        },
        Op::RmsNorm { .. }
        | Op::RmsNormGrad { .. }
        | Op::Rope { .. }
        | Op::Attention(_)
        | Op::AttentionGrad(_)
        | Op::CachedAttention(_)
        | Op::AddBias
        | Op::SwiGlu
        | Op::SwiGluGrad
        | Op::GeGlu
        | Op::GeGluGrad
        | Op::SumOfSquares
        | Op::AdamW(_) => match at.input(0)?.tensor.dtype {
            DType::F32 => fused::build::<f32>(&at),
            DType::Bf16 => fused::build::<half::bf16>(&at),
            DType::F64 | DType::U32 => Err(at.unsupported()),
        },
        Op::Route { .. } | Op::ExpertLinear { .. } | Op::ExpertWeightGrad { .. } => {
            match at.input(0)?.tensor.dtype {
                DType::F32 => experts::build::<f32>(&at),
                DType::F64 => experts::build::<f64>(&at),
                DType::Bf16 => experts::build::<half::bf16>(&at),
                DType::U32 => Err(at.unsupported()),
            }
        }
        Op::MatMul { .. }
        | Op::Linear { .. }
        | Op::LinearGatedGrad { .. }
        | Op::Pack
        | Op::PackedEmbedding
        | Op::ProjectedCrossEntropy { .. }
        | Op::ProjectedCrossEntropyGrad { .. }
        | Op::ProjectedCrossEntropyWeightGrad { .. } => matrix::build(&at),
    }
}

/// An operation with its operands.
struct Binding<'a> {
    operation: &'a Operation,
    inputs: &'a [Operand],
    outputs: &'a [Operand],
}

impl Binding<'_> {
    fn input(&self, slot: usize) -> Result<&Operand> {
        self.inputs
            .get(slot)
            .ok_or_else(|| Error::internal(format!("{:?} lacks input {slot}", self.operation)))
    }

    fn output(&self, slot: usize) -> Result<&Operand> {
        self.outputs
            .get(slot)
            .ok_or_else(|| Error::internal(format!("{:?} lacks output {slot}", self.operation)))
    }

    fn unsupported(&self) -> Error {
        let types: Vec<String> = self.inputs.iter().map(|input| input.tensor.to_string()).collect();
        Error::device(format!("the CPU has no kernel for {:?} of ({})", self.operation, types.join(", ")))
    }
}
