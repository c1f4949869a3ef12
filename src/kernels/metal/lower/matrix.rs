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
/// Products that one launch takes.
const TOGETHER: usize = 3;
/// Threadgroups that keep a GPU busy enough: more splits of a depth would take a launch to add them up, for all of them.
const BUSY: u32 = 64;

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

    fn is_thin(&self) -> bool {
        self.batch == 1 && self.rows.min(self.columns) <= THIN
    }

    fn spec(&self) -> Result<ProductSpec> {
        Ok(ProductSpec {
            rows: extent(self.rows)?,
            columns: extent(self.columns)?,
            depth: extent(self.depth)?,
            left_across: self.transpose_left.into(),
            right_across: (!self.transpose_right).into(),
            splits: 1,
            scale: 1.0,
            ..ProductSpec::zeroed()
        })
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
    if at.is_thin() {
        return thin(&[at], wide, to);
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

/// Up to three products that do not depend on each other, in the same launches: the inputs of the i-th are 2 i and 2 i + 1,
/// and i is its output. None where one is not thin, or they differ in type.
pub fn together(nodes: &[Node<'_>], layouts: &[[bool; 2]], to: &mut Lowering) -> Result<Option<()>> {
    let mut products = vec![];
    let mut kinds = vec![];
    for (node, [transpose_left, transpose_right]) in nodes.iter().zip(layouts) {
        let product = Product::of(node, *transpose_left, *transpose_right)?;
        if !product.is_thin() {
            return Ok(None);
        }
        products.push(product);
        kinds.push((node.element()?, node.output(0)?.dtype));
    }
    let alike = kinds.windows(2).all(|pair| pair[0] == pair[1]);
    let Some(&(element, dtype)) = kinds.first().filter(|_| alike && kinds.len() <= TOGETHER) else {
        return Ok(None);
    };
    to.element = element;
    thin(&products, element != Element::F32 && dtype == DType::F32, to)?;
    Ok(Some(()))
}

/// Products with few tiles are split along their depth.
fn thin(products: &[Product], wide: bool, to: &mut Lowering) -> Result<()> {
    let mut specs = [ProductSpec::zeroed(); TOGETHER];
    for (spec, product) in specs.iter_mut().zip(products) {
        *spec = product.spec()?;
    }
    let elements = launch::split(&mut specs, BUSY);
    let whole = specs[0].splits == 1;
    // Products that are left out touch nothing, but have to be bound.
    let operand = |i: usize| i.min(products.len() - 1);
    let [left, right, y] =
        [|i| Input(2 * i), |i| Input(2 * i + 1), Output].map(|place| [0, 1, 2].map(operand).map(place));
    let bound = |places: &[[Place; TOGETHER]], last: &[Place]| -> Vec<Bound> {
        places.iter().flatten().chain(last).map(|&place| place.into()).collect()
    };
    if whole && !wide {
        to.steps.push(Step::Launch(launch::products(&specs), bound(&[left, right, y], &[])));
        return Ok(());
    }
    // The only split of the only product is the product.
    let direct = whole && products.len() == 1;
    let partials = if direct { Output(0) } else { to.scratch(size_of::<f32>() * elements as usize) };
    to.steps.push(Step::Launch(launch::product_partials(&specs), bound(&[left, right], &[partials])));
    if !direct {
        let add = if wide { launch::add_wide_partials } else { launch::add_partials };
        to.launch(add(&specs), [partials, y[0], y[1], y[2]].map(Into::into));
    }
    Ok(())
}
