//! Kernels of matrix operations.

use bytemuck::Pod;
use half::bf16;

use super::Binding;
use crate::error::{Error, Result};
use crate::graph::{DType, LowRank, Operation, Scalar, TensorType};
use crate::kernels::cross_entropy::{
    CrossEntropyGradOutputs, CrossEntropyInputs, CrossEntropySpec, ProjectedCrossEntropy,
    ProjectedCrossEntropyGrad, ProjectedCrossEntropyWeightGrad,
};
use crate::kernels::linear::{GatedGradient, Linear, LinearSpec, LowRankTerm, Product};
use crate::kernels::matmul::{MatMul, MatMulSpec, Written};
use crate::kernels::pack::{Element, Pack, PackSpec, PackedEmbedding, packed_len};
use crate::kernels::simd::Isa;
use crate::kernels::{Kernel, Operand};

/// Bytes of a weight's packed form.
pub fn packed_bytes(weight: TensorType) -> usize {
    match weight.dtype {
        DType::Bf16 => size_of::<bf16>() * packed_elements::<bf16>(weight),
        DType::F32 | DType::F64 | DType::U32 => size_of::<f32>() * packed_elements::<f32>(weight),
    }
}

fn packed_elements<E: Element>(weight: TensorType) -> usize {
    packed_len::<E>(weight.shape.rows(), weight.shape.last())
}

pub(super) fn build(at: &Binding<'_>) -> Result<Box<dyn Kernel>> {
    if let Operation::MatMul { transpose_left, transpose_right, .. } = at.operation {
        return matmul(at, *transpose_left, *transpose_right);
    }
    match at.input(0)?.tensor.dtype {
        DType::F32 => with_packed_weight::<f32>(at),
        DType::Bf16 => with_packed_weight::<bf16>(at),
        DType::F64 | DType::U32 => Err(at.unsupported()),
    }
}

/// Kernels that pack a weight or read a packed one.
fn with_packed_weight<E: Element + Written>(at: &Binding<'_>) -> Result<Box<dyn Kernel>> {
    use Operation as Op;
    match at.operation {
        Op::Pack => pack::<E>(at),
        Op::Linear { transpose_weight, low_rank, residual } => {
            let residual = residual.then(|| at.inputs.last().map(Operand::input)).flatten();
            let product = Product::Written { residual, y: at.output(0)?.output() };
            linear::<E>(at, *transpose_weight, *low_rank, product)
        }
        Op::LinearGatedGrad { transpose_weight, low_rank, function, value } => {
            let [.., gate, up] = at.inputs else { return Err(at.unsupported()) };
            let product = Product::Gated(GatedGradient {
                function: *function,
                gate: gate.input(),
                up: up.input(),
                dgate: at.output(0)?.output(),
                dup: at.output(1)?.output(),
                value: value.then(|| at.output(2)).transpose()?.map(Operand::output),
            });
            linear::<E>(at, *transpose_weight, *low_rank, product)
        }
        Op::PackedEmbedding => packed_embedding::<E>(at),
        Op::ProjectedCrossEntropy { soft_cap }
        | Op::ProjectedCrossEntropyGrad { soft_cap }
        | Op::ProjectedCrossEntropyWeightGrad { soft_cap } => cross_entropy::<E>(at, *soft_cap),
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
    let sides = (left, right, product);
    match (left.tensor.dtype, product.tensor.dtype) {
        (DType::F32, DType::F32) => product_of::<f32, f32>(sides, spec),
        (DType::Bf16, DType::Bf16) => product_of::<bf16, bf16>(sides, spec),
        (DType::Bf16, DType::F32) => product_of::<bf16, f32>(sides, spec),
        (DType::F64, DType::F64) => product_of::<f64, f64>(sides, spec),
        _ => Err(at.unsupported()),
    }
}

fn product_of<E: Pod, P: Pod>(
    (left, right, product): (&Operand, &Operand, &Operand),
    spec: MatMulSpec,
) -> Result<Box<dyn Kernel>>
where
    MatMul<E, P>: Kernel + 'static,
{
    Ok(Box::new(MatMul::<E, P>::new(left.input(), right.input(), product.output(), spec)?))
}

fn cross_entropy<E: Element>(at: &Binding<'_>, soft_cap: Option<Scalar>) -> Result<Box<dyn Kernel>> {
    let (hidden, weight, targets) = (at.input(0)?, at.input(1)?, at.input(2)?);
    let (vocab, width) = (weight.tensor.shape.rows(), weight.tensor.shape.last());
    let (tokens, isa) = (hidden.tensor.shape.rows(), Isa::detect());
    let spec = CrossEntropySpec { tokens, width, vocab, soft_cap, isa };
    let packed = weight.input_of_len(packed_elements::<E>(weight.tensor));
    let inputs = CrossEntropyInputs::<E> { hidden: hidden.input(), packed, targets: targets.input() };
    Ok(match at.operation {
        Operation::ProjectedCrossEntropy { .. } => {
            Box::new(ProjectedCrossEntropy::new(inputs, at.output(0)?.output(), spec)?)
        }
        Operation::ProjectedCrossEntropyGrad { .. } => {
            let outputs = CrossEntropyGradOutputs {
                loss: at.output(0)?.output(),
                log_sum_exp: at.output(1)?.output(),
                hidden_gradient: at.output(2)?.output(),
            };
            Box::new(ProjectedCrossEntropyGrad::new(inputs, at.input(3)?.input(), outputs, spec)?)
        }
        Operation::ProjectedCrossEntropyWeightGrad { .. } => {
            let (dloss, log_sum_exp) = (at.input(3)?.input(), at.input(4)?.input());
            let gradient = at.output(0)?.output();
            Box::new(ProjectedCrossEntropyWeightGrad::new(inputs, dloss, log_sum_exp, gradient, spec)?)
        }
        _ => return Err(at.unsupported()),
    })
}

fn pack<E: Element>(at: &Binding<'_>) -> Result<Box<dyn Kernel>> {
    let (weight, packed) = (at.input(0)?, at.output(0)?);
    let spec = PackSpec { outputs: weight.tensor.shape.rows(), inputs: weight.tensor.shape.last() };
    let packed = packed.output_of_len::<E>(packed_elements::<E>(weight.tensor));
    Ok(Box::new(Pack::<E, E>::new(weight.input(), packed, spec)?))
}

fn packed_embedding<E: Element>(at: &Binding<'_>) -> Result<Box<dyn Kernel>> {
    let (table, ids, y) = (at.input(0)?, at.input(1)?, at.output(0)?);
    let (rows, width) = (table.tensor.shape.rows(), table.tensor.shape.last());
    let packed = table.input_of_len(packed_elements::<E>(table.tensor));
    Ok(Box::new(PackedEmbedding::<E>::new([rows, width], packed, ids.input(), y.output())?))
}

fn linear<E: Element + Written>(
    at: &Binding<'_>,
    transpose_weight: bool,
    low_rank: Option<LowRank>,
    product: Product<E>,
) -> Result<Box<dyn Kernel>> {
    let (x, weight, y) = (at.input(0)?, at.input(1)?, at.output(0)?);
    let spec = LinearSpec {
        rows: x.tensor.shape.rows(),
        inputs: x.tensor.shape.last(),
        outputs: y.tensor.shape.last(),
        transpose_weight,
        isa: Isa::detect(),
    };
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
    let packed = weight.input_of_len(packed_elements::<E>(weight.tensor));
    Ok(Box::new(Linear::<E>::new(x.input(), packed, term, product, spec)?))
}
