//! Linear layers: the device's own product, then what is added to it.

use bytemuck::Zeroable;

use super::{Lowering, Node, Place, Step, extent};
use crate::error::Result;
use crate::graph::LowRank;
use crate::kernels::metal::launch;
use crate::kernels::metal::{BiasSpec, ProductSpec};

use Place::{Input, Output};

/// (x, weight, u, v where there is a low-rank part, residual where there is one) -> y
pub fn linear(
    node: &Node<'_>,
    transpose_weight: bool,
    low_rank: Option<LowRank>,
    residual: bool,
    to: &mut Lowering,
) -> Result<()> {
    let (x, y) = (node.input(0)?.shape, node.output(0)?);
    let (rows, columns) = (y.shape.rows(), y.shape.last());
    let base = if residual { to.scratch(y.bytes()) } else { Output(0) };
    to.steps.push(Step::Product {
        left: Input(0),
        right: Input(1),
        y: base,
        transpose_left: false,
        transpose_right: !transpose_weight,
        extents: [rows, columns, x.last()],
    });
    if residual {
        // One long row and its bias are a sum of any two tensors.
        let spec = BiasSpec { rows: 1, width: extent(rows * columns)? };
        let bound = [base, Input(node.inputs.len() - 1), Output(0)].map(Into::into);
        to.launch(launch::add_bias(spec), bound);
    }
    if let Some(low_rank) = low_rank {
        let spec = ProductSpec {
            rows: extent(rows)?,
            columns: extent(columns)?,
            depth: extent(node.input(2)?.shape.last())?,
            right_across: low_rank.transpose.into(),
            add: 1,
            splits: 1,
            scale: low_rank.scale.0 as f32,
            ..ProductSpec::zeroed()
        };
        let specs = [spec, ProductSpec::zeroed(), ProductSpec::zeroed()];
        // Products that are left out touch nothing, but have to be bound.
        let (u, v, y) = (Input(2), Input(3), Output(0));
        to.launch(launch::products(&specs), [u, u, u, v, v, v, y, y, y].map(Into::into));
    }
    Ok(())
}
