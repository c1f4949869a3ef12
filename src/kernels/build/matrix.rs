//! Kernels of matrix operations.

use super::Binding;
use crate::error::{Error, Result};
use crate::graph::{DType, LowRank, Operation, TensorType};
use crate::kernels::cross_entropy::{
    CrossEntropyGradOutputs, CrossEntropyInputs, CrossEntropySpec, ProjectedCrossEntropy,
    ProjectedCrossEntropyGrad, ProjectedCrossEntropyWeightGrad,
};
use crate::kernels::linear::{Linear, LinearSpec, LowRankTerm};
use crate::kernels::matmul::{MatMul, MatMulSpec};
use crate::kernels::pack::{Element, Pack, PackSpec, PackedEmbedding, packed_len};
use crate::kernels::simd::Isa;
use crate::kernels::{Kernel, Operand};

/// Bytes of a weight's packed form.
pub fn packed_bytes(weight: TensorType, transpose_weight: bool) -> usize {
    let (outputs, inputs) = extents(weight, transpose_weight);
    match weight.dtype {
        DType::Bf16 => 2 * packed_len::<half::bf16>(outputs, inputs),
        DType::F32 | DType::F64 | DType::U32 => 4 * packed_len::<f32>(outputs, inputs),
    }
}

/// Outputs and inputs of the product that a weight matrix is used in.
fn extents(weight: TensorType, transpose_weight: bool) -> (usize, usize) {
    let (rows, columns) = (weight.shape.rows(), weight.shape.last());
    if transpose_weight { (columns, rows) } else { (rows, columns) }
}

pub(super) fn build(at: &Binding<'_>) -> Result<Box<dyn Kernel>> {
    use Operation as Op;
    match at.operation {
        Op::Pack { transpose_weight } => pack(at, *transpose_weight),
        Op::Linear { transpose_weight, low_rank, residual } => {
            linear(at, *transpose_weight, *low_rank, *residual)
        }
        Op::PackedEmbedding => match at.output(0)?.tensor.dtype {
            DType::F32 => packed_embedding::<f32>(at),
            DType::Bf16 => packed_embedding::<half::bf16>(at),
            DType::F64 | DType::U32 => Err(at.unsupported()),
        },
        Op::MatMul { transpose_left, transpose_right, .. } => matmul(at, *transpose_left, *transpose_right),
        Op::ProjectedCrossEntropy | Op::ProjectedCrossEntropyGrad | Op::ProjectedCrossEntropyWeightGrad => {
            cross_entropy(at)
        }
        _ => Err(at.unsupported()),
    }
}

fn matmul(at: &Binding<'_>, transpose_left: bool, transpose_right: bool) -> Result<Box<dyn Kernel>> {
    let (left, right, product) = (at.input(0)?, at.input(1)?, at.output(0)?);
    let shape = product.tensor.shape;
    let [.., rows, columns] = *shape.dims() else { return Err(at.unsupported()) };
    let [.., first, second] = *left.tensor.shape.dims() else { return Err(at.unsupported()) };
    let spec = MatMulSpec {
        batch: shape.dims()[..shape.rank() - 2].iter().product(),
        rows,
        inner: if transpose_left { first } else { second },
        columns,
        transpose_left,
        transpose_right,
        isa: Isa::detect(),
    };
    Ok(match product.tensor.dtype {
        DType::F32 => Box::new(MatMul::<f32>::new(left.input(), right.input(), product.output(), spec)?),
        DType::F64 => Box::new(MatMul::<f64>::new(left.input(), right.input(), product.output(), spec)?),
        DType::Bf16 | DType::U32 => return Err(at.unsupported()),
    })
}

fn cross_entropy(at: &Binding<'_>) -> Result<Box<dyn Kernel>> {
    let (hidden, weight, targets) = (at.input(0)?, at.input(1)?, at.input(2)?);
    if hidden.tensor.dtype != DType::F32 {
        return Err(at.unsupported());
    }
    let (vocab, width) = (weight.tensor.shape.rows(), weight.tensor.shape.last());
    let spec = CrossEntropySpec { tokens: hidden.tensor.shape.rows(), width, vocab, isa: Isa::detect() };
    let packed = weight.input_of_len(packed_len::<f32>(vocab, width));
    let inputs = CrossEntropyInputs { hidden: hidden.input(), packed, targets: targets.input() };
    Ok(match at.operation {
        Operation::ProjectedCrossEntropyGrad => {
            let transposed = at.input(4)?.input_of_len(packed_len::<f32>(width, vocab));
            let outputs = CrossEntropyGradOutputs {
                loss: at.output(0)?.output(),
                log_sum_exp: at.output(1)?.output(),
                hidden_gradient: at.output(2)?.output(),
            };
            Box::new(ProjectedCrossEntropyGrad::new(inputs, transposed, at.input(3)?.input(), outputs, spec)?)
        }
        Operation::ProjectedCrossEntropyWeightGrad => {
            let (dloss, log_sum_exp) = (at.input(3)?.input(), at.input(4)?.input());
            Box::new(ProjectedCrossEntropyWeightGrad::new(
                inputs,
                dloss,
                log_sum_exp,
                at.output(0)?.output(),
                spec,
            )?)
        }
        _ => Box::new(ProjectedCrossEntropy::new(inputs, at.output(0)?.output(), spec)?),
    })
}

fn pack(at: &Binding<'_>, transpose_weight: bool) -> Result<Box<dyn Kernel>> {
    let (weight, packed) = (at.input(0)?, at.output(0)?);
    let (outputs, inputs) = extents(weight.tensor, transpose_weight);
    let spec = PackSpec { outputs, inputs, transpose_weight };
    match weight.tensor.dtype {
        DType::F32 => {
            let packed = packed.output_of_len::<f32>(packed_len::<f32>(outputs, inputs));
            Ok(Box::new(Pack::<f32, f32>::new(weight.input(), packed, spec)?))
        }
        DType::Bf16 | DType::F64 | DType::U32 => Err(at.unsupported()),
    }
}

fn packed_embedding<E: Element + bytemuck::Pod>(at: &Binding<'_>) -> Result<Box<dyn Kernel>> {
    let (table, ids, y) = (at.input(0)?, at.input(1)?, at.output(0)?);
    let (rows, width) = (table.tensor.shape.rows(), table.tensor.shape.last());
    let packed = table.input_of_len(packed_len::<E>(rows, width));
    Ok(Box::new(PackedEmbedding::<E>::new([rows, width], packed, ids.input(), y.output())?))
}

fn linear(
    at: &Binding<'_>,
    transpose_weight: bool,
    low_rank: Option<LowRank>,
    residual: bool,
) -> Result<Box<dyn Kernel>> {
    let (x, weight, y) = (at.input(0)?, at.input(1)?, at.output(0)?);
    let (outputs, inputs) = extents(weight.tensor, transpose_weight);
    let spec = LinearSpec { rows: x.tensor.shape.rows(), inputs, outputs, isa: Isa::detect() };
    if x.tensor.dtype != DType::F32 {
        return Err(at.unsupported());
    }
    let term = |low_rank: LowRank| {
        let (u, v) = (at.input(2)?, at.input(3)?);
        Ok::<_, Error>(LowRankTerm {
            u: u.input(),
            v: v.input(),
            rank: u.tensor.shape.last(),
            scale: low_rank.scale.0 as f32,
            transpose: low_rank.transpose,
        })
    };
    let term = low_rank.map(term).transpose()?;
    let residual = residual.then(|| at.inputs.last().map(Operand::input)).flatten();
    let packed = weight.input_of_len(packed_len::<f32>(outputs, inputs));
    Ok(Box::new(Linear::new(x.input(), packed, term, residual, y.output(), spec)?))
}
