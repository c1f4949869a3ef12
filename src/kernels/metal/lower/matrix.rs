//! Products of matrices: the device's own for large ones, ours for thin ones, batches and sums wider than the factors.

use bytemuck::Zeroable;

use super::{Bound, Lowering, Node, Place, Step, extent};
use crate::error::{Error, Result};
use crate::graph::DType;
use crate::kernels::metal::launch;
use crate::kernels::metal::{Element, MatrixSpec, ProductSpec};

use Place::{Input, Output};

/// The narrowest side of a product that the device's own is for.
const THIN: usize = 64;
/// Threadgroups that keep any GPU busy.
const BUSY: u32 = 256;

/// Extents of a product, and which factors lie across.
struct Product {
    batch: usize,
    rows: usize,
    columns: usize,
    depth: usize,
    transpose_left: bool,
    transpose_right: bool,
}

impl Product {
    fn of(node: &Node<'_>, transpose_left: bool, transpose_right: bool) -> Result<Self> {
        let (left, shape) = (node.input(0)?.shape, node.output(0)?.shape);
        let ([batch @ .., rows, columns], [.., first, second]) = (shape.dims(), left.dims()) else {
            return Err(Error::internal("a product needs matrices"));
        };
        extent(left.elements().max(node.input(1)?.shape.elements()).max(shape.elements()))?;
        let depth = if transpose_left { *first } else { *second };
        let batch = batch.iter().product();
        Ok(Self { batch, rows: *rows, columns: *columns, depth, transpose_left, transpose_right })
    }
}

/// (left, right) -> product
pub fn product(
    node: &Node<'_>,
    transpose_left: bool,
    transpose_right: bool,
    to: &mut Lowering,
) -> Result<()> {
    let at = Product::of(node, transpose_left, transpose_right)?;
    let wide = to.element != Element::F32 && node.output(0)?.dtype == DType::F32;
    if at.batch == 1 && at.rows.min(at.columns) <= THIN {
        return thin(&at, wide, to);
    }
    if at.batch == 1 && !wide {
        let extents = [at.rows, at.columns, at.depth];
        to.steps.push(Step::Product {
            left: Input(0),
            right: Input(1),
            y: Output(0),
            transpose_left,
            transpose_right,
            extents,
        });
        return Ok(());
    }
    let spec = MatrixSpec {
        rows: extent(at.rows)?,
        columns: extent(at.columns)?,
        depth: extent(at.depth)?,
        left_across: transpose_left.into(),
        right_across: (!transpose_right).into(),
    };
    let bound = [Input(0), Input(1), Output(0)].map(Into::into);
    to.launch(launch::matrix_products(spec, extent(at.batch)?, wide), bound);
    Ok(())
}

/// A product with few tiles is split along its depth.
fn thin(at: &Product, wide: bool, to: &mut Lowering) -> Result<()> {
    let spec = ProductSpec {
        rows: extent(at.rows)?,
        columns: extent(at.columns)?,
        depth: extent(at.depth)?,
        left_across: at.transpose_left.into(),
        right_across: (!at.transpose_right).into(),
        splits: 1,
        scale: 1.0,
        ..ProductSpec::zeroed()
    };
    let mut specs = [spec, ProductSpec::zeroed(), ProductSpec::zeroed()];
    let elements = launch::split(&mut specs, BUSY);
    let whole = specs[0].splits == 1;
    // Products that are left out touch nothing, but have to be bound.
    let (left, right, y): (Bound, Bound, Bound) = (Input(0).into(), Input(1).into(), Output(0).into());
    if whole && !wide {
        to.launch(launch::products(&specs), [left, left, left, right, right, right, y, y, y]);
        return Ok(());
    }
    // The only split of a wide product is the product.
    let partials = if whole { y } else { to.scratch(size_of::<f32>() * elements as usize).into() };
    to.launch(launch::product_partials(&specs), [left, left, left, right, right, right, partials]);
    if !whole {
        let add = if wide { launch::add_wide_partials } else { launch::add_partials };
        to.launch(add(&specs), [partials, y, y, y]);
    }
    Ok(())
}
