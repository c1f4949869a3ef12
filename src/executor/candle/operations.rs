//! Plain operations in candle's terms.

use candle_core::{Device as Hardware, Result as CandleResult, Tensor};

use super::device::{candle_dtype, failed, upload};
use super::experts;
use crate::error::{Error, Result};
use crate::executor::host_tensor::HostTensor;
use crate::graph::{Binary, FrozenNode, Operation, Reduction, Unary};
use crate::kernels::{self, Memory};

/// A node with the values of its inputs.
pub(super) struct Operands<'a> {
    pub node: &'a FrozenNode,
    pub inputs: &'a [Tensor],
    /// Inputs that the host knows: ids, segments, seeds.
    pub host: &'a [Option<&'a HostTensor>],
    pub hardware: &'a Hardware,
}

/// Computes a node's only output.
pub(super) fn run(at: &Operands<'_>) -> Result<Tensor> {
    use Operation as Op;
    match &at.node.operation {
        Op::RopeTable(_) | Op::AttentionMask { .. } | Op::CacheMask { .. } | Op::DropoutMask { .. } => {
            on_host(at)
        }
        Op::WriteRows => write_rows(at),
        Op::Route { .. } | Op::ExpertLinear { .. } | Op::ExpertWeightGrad { .. } => {
            experts::run(at).map_err(failed)
        }
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
        | Op::Linear { .. }
        | Op::LinearGatedGrad { .. }
        | Op::ProjectedCrossEntropy { .. }
        | Op::ProjectedCrossEntropyGrad { .. }
        | Op::ProjectedCrossEntropyWeightGrad { .. }
        | Op::SumOfSquares
        | Op::AdamW(_)
        | Op::Pack
        | Op::PackedEmbedding
        | Op::Input(_)
        | Op::Frozen(_)
        | Op::State(_)
        | Op::Output(_) => {
            Err(Error::internal(format!("{:?} reached a device without it", at.node.operation)))
        }
        Op::Constant(_)
        | Op::Unary(_)
        | Op::Binary(_)
        | Op::Affine { .. }
        | Op::Cast(_)
        | Op::Reshape(_)
        | Op::Detach
        | Op::BroadcastTo(_)
        | Op::Permute(_)
        | Op::Slice { .. }
        | Op::Concat { .. }
        | Op::Reduce { .. }
        | Op::MatMul { .. }
        | Op::Embedding
        | Op::ScatterRows { .. }
        | Op::TakeLast
        | Op::ScatterLast { .. }
        | Op::Assign => on_device(at).map_err(failed),
    }
}

fn on_device(at: &Operands<'_>) -> CandleResult<Tensor> {
    use Operation as Op;
    let Some(x) = at.inputs.first() else { return constant(at) };
    match &at.node.operation {
        Op::Unary(kind) => unary(*kind, x),
        Op::Binary(kind) => binary(*kind, x, &at.inputs[1]),
        Op::Affine { multiply, add } => x.affine(multiply.0, add.0),
        Op::Cast(dtype) => x.to_dtype(candle_dtype(*dtype)),
        Op::Reshape(shape) => x.reshape(shape.dims()),
        Op::Detach => Ok(x.clone()),
        Op::BroadcastTo(shape) => x.broadcast_as(shape.dims())?.contiguous(),
        Op::Permute(axes) => {
            let axes: Vec<usize> = axes[..x.rank()].iter().map(|&axis| usize::from(axis)).collect();
            x.permute(axes)?.contiguous()
        }
        Op::Slice { axis, start, length } => x.narrow(*axis, *start, *length)?.contiguous(),
        Op::Concat { axis } => Tensor::cat(at.inputs, *axis),
        Op::Reduce { reduction: Reduction::Sum, axis } => x.sum_keepdim(*axis),
        Op::Reduce { reduction: Reduction::Max, axis } => x.max_keepdim(*axis),
        Op::MatMul { transpose_left, transpose_right, widen: false } => {
            matmul(at.inputs, at.node, *transpose_left, *transpose_right)
        }
        Op::MatMul { transpose_left, transpose_right, widen: true } => {
            let dtype = candle_dtype(at.node.tensor_type().dtype);
            let wide =
                at.inputs.iter().map(|input| input.to_dtype(dtype)).collect::<CandleResult<Vec<_>>>()?;
            matmul(&wide, at.node, *transpose_left, *transpose_right)
        }
        Op::Embedding => {
            let (ids, valid) = known(&at.inputs[1], x)?;
            x.index_select(&ids, 0)?.broadcast_mul(&valid)
        }
        Op::ScatterRows { rows } => {
            let values = &at.inputs[1];
            let (ids, valid) = known(x, values)?;
            let zeros = Tensor::zeros((*rows, values.dim(1)?), values.dtype(), at.hardware)?;
            zeros.index_add(&ids, &values.broadcast_mul(&valid)?, 0)
        }
        Op::TakeLast => {
            let (ids, valid) = known(&at.inputs[1], x)?;
            x.gather(&ids.unsqueeze(1)?, 1)?.broadcast_mul(&valid)
        }
        Op::ScatterLast { size } => {
            let (ids, valid) = known(&at.inputs[1], x)?;
            let zeros = Tensor::zeros((x.dim(0)?, *size), x.dtype(), at.hardware)?;
            zeros.scatter_add(&ids.unsqueeze(1)?, &x.broadcast_mul(&valid)?, 1)
        }
        Op::Assign => Ok(at.inputs[1].clone()),
        other => candle_core::bail!("{other:?} is not a plain operation"),
    }
}

/// candle wants at most one axis before the matrices, and takes extents of 1 among several for gaps.
fn matmul(
    inputs: &[Tensor],
    node: &FrozenNode,
    transpose_left: bool,
    transpose_right: bool,
) -> CandleResult<Tensor> {
    let side = |t: &Tensor, transpose: bool| {
        let [.., rows, columns] = *t.dims() else { candle_core::bail!("a product needs matrices") };
        let flat = t.reshape(((), rows, columns))?;
        if transpose { flat.transpose(1, 2)?.contiguous() } else { flat.contiguous() }
    };
    let product = side(&inputs[0], transpose_left)?.matmul(&side(&inputs[1], transpose_right)?)?;
    product.reshape(node.tensor_type().shape.dims())
}

fn constant(at: &Operands<'_>) -> CandleResult<Tensor> {
    let t = at.node.tensor_type();
    match &at.node.operation {
        Operation::Constant(value) => {
            Tensor::full(value.0, t.shape.dims(), at.hardware)?.to_dtype(candle_dtype(t.dtype))
        }
        other => candle_core::bail!("{other:?} lacks its inputs"),
    }
}

fn unary(kind: Unary, x: &Tensor) -> CandleResult<Tensor> {
    match kind {
        Unary::Negate => x.neg(),
        Unary::Exp => x.exp(),
        Unary::Log => x.log(),
        Unary::Sqrt => x.sqrt(),
        Unary::Reciprocal => x.recip(),
        Unary::Sigmoid => candle_nn::ops::sigmoid(x),
        Unary::Tanh => x.tanh(),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
    }
}

fn binary(kind: Binary, left: &Tensor, right: &Tensor) -> CandleResult<Tensor> {
    match kind {
        Binary::Add => left + right,
        Binary::Subtract => left - right,
        Binary::Multiply => left * right,
        Binary::Divide => left / right,
        Binary::Minimum => left.lt(right)?.where_cond(left, right),
        Binary::Equal => left.eq(right)?.to_dtype(left.dtype()),
    }
}

/// Ids with the ignored ones replaced by 0, and [n, 1] factors that are 0 for those.
fn known(ids: &Tensor, like: &Tensor) -> CandleResult<(Tensor, Tensor)> {
    let valid = ids.ne(u32::MAX)?;
    let safe = valid.where_cond(ids, &ids.zeros_like()?)?;
    Ok((safe, valid.to_dtype(like.dtype())?.unsqueeze(1)?))
}

/// Tables and masks come from the CPU's kernels, so that every device sees the same numbers.
fn on_host(at: &Operands<'_>) -> Result<Tensor> {
    let mut memory = Vec::new();
    let mut inputs = Vec::new();
    for host in at.host {
        let value =
            host.ok_or_else(|| Error::internal("a mask depends on a value that only the device has"))?;
        let block = Memory::zeroed(value.tensor.bytes())?;
        let operand = block.operand(0, value.tensor)?;
        operand.write(value.bytes())?;
        inputs.push(operand);
        memory.push(block);
    }
    let tensor = at.node.tensor_type();
    let block = Memory::zeroed(tensor.bytes())?;
    let output = block.operand(0, tensor)?;
    let kernel = kernels::build(&at.node.operation, &inputs, &[output])?;
    let mut scratch = vec![0; kernel.scratch_bytes()];
    (0..kernel.parts()).for_each(|part| kernel.run(part, &mut scratch));
    upload(&HostTensor::from_bytes(tensor, &output.read()), at.hardware)
}

fn write_rows(at: &Operands<'_>) -> Result<Tensor> {
    let start = at.host.get(2).copied().flatten().map(|start| start.to_f64()[0] as usize);
    let start = start.ok_or_else(|| Error::internal("the row to write at is not known to the host"))?;
    at.inputs[0].slice_scatter0(&at.inputs[1], start).map_err(failed)
}
