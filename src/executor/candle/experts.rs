//! Mixtures of experts in candle's terms: which rows an expert has is read back, then its rows are one product.

use candle_core::{DType, Result as CandleResult, Tensor};

use super::operations::Operands;
use crate::graph::Operation;
use crate::kernels::experts::{RouteSpec, routes, runs};

pub(super) fn run(at: &Operands<'_>) -> CandleResult<Tensor> {
    match &at.node.operation {
        Operation::Route { chosen, side } => {
            let experts = at.inputs[0].dim(1)?;
            let spec = RouteSpec { experts, chosen: *chosen, side: *side };
            route(at, &spec)
        }
        Operation::ExpertLinear { transpose_weight } => linear(at.inputs, *transpose_weight),
        Operation::ExpertWeightGrad { experts } => weight_gradient(at.inputs, *experts),
        other => candle_core::bail!("{other:?} is not of a mixture of experts"),
    }
}

/// The CPU's routing, so that every device chooses the same experts from the same scores.
fn route(at: &Operands<'_>, spec: &RouteSpec) -> CandleResult<Tensor> {
    let scores = at.inputs[0].flatten_all()?;
    let mut pairs = vec![0; at.node.tensor_type().shape.elements()];
    if scores.dtype() == DType::F64 {
        routes(&scores.to_vec1::<f64>()?, spec, &mut pairs);
    } else {
        routes(&scores.to_dtype(DType::F32)?.to_vec1::<f32>()?, spec, &mut pairs);
    }
    let count = pairs.len();
    Tensor::from_vec(pairs, count, at.hardware)
}

fn linear(inputs: &[Tensor], transpose_weight: bool) -> CandleResult<Tensor> {
    let (x, weight) = (&inputs[0], &inputs[1]);
    let (experts, rows, columns) = weight.dims3()?;
    let out = if transpose_weight { columns } else { rows };
    let ids = inputs[2].to_vec1()?;
    let products = runs(&ids).map(|(expert, rows)| {
        if expert >= experts {
            return Tensor::zeros((rows.len(), out), x.dtype(), x.device());
        }
        let matrix = weight.get(expert)?;
        let matrix = if transpose_weight { matrix } else { matrix.t()?.contiguous()? };
        x.narrow(0, rows.start, rows.len())?.contiguous()?.matmul(&matrix)
    });
    Tensor::cat(&products.collect::<CandleResult<Vec<_>>>()?, 0)
}

fn weight_gradient(inputs: &[Tensor], experts: usize) -> CandleResult<Tensor> {
    let (dy, x) = (&inputs[0], &inputs[1]);
    let zeros = Tensor::zeros((dy.dim(1)?, x.dim(1)?), x.dtype(), x.device())?;
    let mut gradients = vec![zeros; experts];
    for (expert, rows) in runs(&inputs[2].to_vec1()?) {
        let of_rows = |t: &Tensor| t.narrow(0, rows.start, rows.len())?.contiguous();
        if let Some(gradient) = gradients.get_mut(expert) {
            *gradient = of_rows(dy)?.t()?.contiguous()?.matmul(&of_rows(x)?)?;
        }
    }
    Tensor::stack(&gradients, 0)
}
