//! Operations on rows and on single elements.

use super::{Lowering, Node, Place, extent};
use crate::error::Result;
use crate::graph::Operation;
use crate::kernels::metal::launch;
use crate::kernels::metal::{BiasSpec, RmsNormSpec, RopeSpec, RowsSpec};

use Place::{Input, Output};

fn rms_norm_spec(node: &Node<'_>, epsilon: f64) -> Result<RmsNormSpec> {
    let shape = node.input(0)?.shape;
    Ok(RmsNormSpec { rows: extent(shape.rows())?, width: extent(shape.last())?, epsilon: epsilon as f32 })
}

pub fn rms_norm(node: &Node<'_>, epsilon: f64, to: &mut Lowering) -> Result<()> {
    let spec = rms_norm_spec(node, epsilon)?;
    to.launch(launch::rms_norm(spec), [Input(0), Input(1), Output(0)].map(Into::into));
    Ok(())
}

pub fn rms_norm_gradient(
    node: &Node<'_>,
    epsilon: f64,
    weight_gradient: bool,
    to: &mut Lowering,
) -> Result<()> {
    let spec = rms_norm_spec(node, epsilon)?;
    let inverse = to.scratch(size_of::<f32>() * spec.rows as usize);
    let bound = [Input(0), Input(1), Input(2), Output(0), inverse].map(Into::into);
    to.launch(launch::rms_norm_gradient(spec), bound);
    if weight_gradient {
        let bound = [Input(0), Input(2), inverse, Output(1)].map(Into::into);
        to.launch(launch::rms_norm_weight_gradient(spec), bound);
    }
    Ok(())
}

pub fn rope(node: &Node<'_>, head_dim: usize, inverse: bool, to: &mut Lowering) -> Result<()> {
    let shape = node.input(0)?.shape;
    let spec = RopeSpec {
        rows: extent(shape.rows())?,
        heads: extent(shape.last() / head_dim.max(1))?,
        head_dim: extent(head_dim)?,
        sign: if inverse { -1.0 } else { 1.0 },
    };
    to.launch(launch::rope(spec), [Input(0), Input(1), Input(2), Output(0)].map(Into::into));
    Ok(())
}

pub fn add_bias(node: &Node<'_>, to: &mut Lowering) -> Result<()> {
    let shape = node.input(0)?.shape;
    let spec = BiasSpec { rows: extent(shape.rows())?, width: extent(shape.last())? };
    to.launch(launch::add_bias(spec), [Input(0), Input(1), Output(0)].map(Into::into));
    Ok(())
}

pub fn gated(node: &Node<'_>, operation: &Operation, to: &mut Lowering) -> Result<()> {
    let elements = extent(node.input(0)?.shape.elements())?;
    if matches!(operation, Operation::SwiGlu | Operation::GeGlu) {
        let silu = matches!(operation, Operation::SwiGlu);
        let launch = if silu { launch::swiglu(elements) } else { launch::geglu(elements) };
        to.launch(launch, [Input(0), Input(1), Output(0)].map(Into::into));
    } else {
        let silu = matches!(operation, Operation::SwiGluGrad);
        let launch = if silu { launch::swiglu_gradient(elements) } else { launch::geglu_gradient(elements) };
        to.launch(launch, [Input(0), Input(1), Input(2), Output(0), Output(1)].map(Into::into));
    }
    Ok(())
}

pub fn embedding(node: &Node<'_>, to: &mut Lowering) -> Result<()> {
    let (table, ids) = (node.input(0)?.shape, node.input(1)?.shape);
    let spec = RowsSpec {
        count: extent(ids.elements())?,
        width: extent(table.last())?,
        rows: extent(table.rows())?,
    };
    to.launch(launch::gather_rows(spec), [Input(0), Input(1), Output(0)].map(Into::into));
    Ok(())
}
