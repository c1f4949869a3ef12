//! Kernels of matrix operations.

use super::Binding;
use crate::error::{Error, Result};
use crate::graph::{DType, LowRank, Operation, TensorType};
use crate::kernels::linear::{Linear, LinearSpec, LowRankTerm};
use crate::kernels::pack::{Pack, PackSpec, packed_len};
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
        Op::MatMul { transpose_left, transpose_right } => {
            let (a, b, y) = (at.input(0)?, at.input(1)?, at.output(0)?);
            let d = y.tensor.shape.dims();
            let (m, n) = (d[d.len() - 2], d[d.len() - 1]);
            let batch = y.tensor.shape.elements() / (m * n).max(1);
            let k = a.tensor.shape.elements() / (batch * m).max(1);
            let dims = [batch, m, n, k];
            let (tl, tr) = (*transpose_left, *transpose_right);
            match y.tensor.dtype {
                DType::F32 => super::reference_matmul::MatMulReference::<f32> {
                    dims,
                    tl,
                    tr,
                    a: a.input(),
                    b: b.input(),
                    y: y.output(),
                }
                .boxed(),
                DType::F64 => super::reference_matmul::MatMulReference::<f64> {
                    dims,
                    tl,
                    tr,
                    a: a.input(),
                    b: b.input(),
                    y: y.output(),
                }
                .boxed(),
                _ => Err(at.unsupported()),
            }
        }
        _ => Err(at.unsupported()),
    }
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
