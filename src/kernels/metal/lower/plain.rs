//! Plain operations, but for products.

use half::bf16;

use super::{Lowering, Node, Place, element_of, extent};
use crate::error::{Error, Result};
use crate::graph::{Binary, DType, MAX_RANK, Operation, Reduction, Scalar, Shape, Unary};
use crate::kernels::metal::launch;
use crate::kernels::metal::{
    AffineSpec, ConcatSpec, DropoutSpec, Element, MaskSpec, PickSpec, ReduceSpec, RowsSpec, StridedSpec,
};

use Place::{Input, Output};

/// Tensors that one launch puts side by side.
const JOINED: usize = 4;

/// A number as the CPU's kernels round it, which is one that the library's type holds.
fn rounded(value: f64, element: Element) -> f32 {
    match element {
        Element::Bf16 => bf16::from_f64(value).to_f32(),
        Element::F32 | Element::F16 => value as f32,
    }
}

pub fn constant(node: &Node<'_>, value: Scalar, to: &mut Lowering) -> Result<()> {
    let elements = extent(node.output(0)?.shape.elements())?;
    to.launch(launch::fill(elements, rounded(value.0, to.element)), [Output(0).into()]);
    Ok(())
}

pub fn unary(node: &Node<'_>, kind: Unary, to: &mut Lowering) -> Result<()> {
    let function = match kind {
        Unary::Negate => 0,
        Unary::Exp => 1,
        Unary::Log => 2,
        Unary::Sqrt => 3,
        Unary::Reciprocal => 4,
        Unary::Sigmoid => 5,
        Unary::Tanh => 6,
        Unary::Sin => 7,
        Unary::Cos => 8,
    };
    let elements = extent(node.output(0)?.shape.elements())?;
    to.launch(launch::unary(elements, function), [Input(0), Output(0)].map(Into::into));
    Ok(())
}

pub fn binary(node: &Node<'_>, kind: Binary, to: &mut Lowering) -> Result<()> {
    let function = match kind {
        Binary::Add => 0,
        Binary::Subtract => 1,
        Binary::Multiply => 2,
        Binary::Divide => 3,
        Binary::Minimum => 4,
        Binary::Equal => 5,
    };
    let elements = extent(node.output(0)?.shape.elements())?;
    to.launch(launch::binary(elements, function), [Input(0), Input(1), Output(0)].map(Into::into));
    Ok(())
}

pub fn affine(node: &Node<'_>, [multiply, add]: [Scalar; 2], to: &mut Lowering) -> Result<()> {
    let elements = extent(node.output(0)?.shape.elements())?;
    let spec = AffineSpec { elements, multiply: multiply.0 as f32, add: add.0 as f32 };
    to.launch(launch::affine(spec), [Input(0), Output(0)].map(Into::into));
    Ok(())
}

/// The library is that of whichever side is not f32.
pub fn cast(node: &Node<'_>, to: &mut Lowering) -> Result<()> {
    let (from, y) = (node.input(0)?, node.output(0)?);
    let elements = extent(y.shape.elements())?;
    let launch = match (from.dtype, y.dtype) {
        (DType::U32, _) => launch::from_ids(elements),
        (from, to) if from == to => launch::copy(elements),
        (_, DType::F32) => launch::to_float(elements),
        (DType::F32, _) => launch::from_float(elements),
        _ => return Err(Error::internal(format!("Metal has no cast from {from} to {y}"))),
    };
    to.element = element_of(if from.dtype == DType::Bf16 { from } else { y })?;
    to.launch(launch, [Input(0), Output(0)].map(Into::into));
    Ok(())
}

/// How far apart neighbours along each axis lie, in elements.
fn strides(shape: &Shape) -> [usize; MAX_RANK] {
    let mut strides = [0; MAX_RANK];
    let mut step = 1;
    for (axis, &extent) in shape.dims().iter().enumerate().rev() {
        strides[axis] = step;
        step *= extent;
    }
    strides
}

/// A permutation, a broadcast or a slice: y [dims] from `offset` of x on, by strides of x.
fn strided(dims: &[usize], strides: &[usize], offset: usize, to: &mut Lowering) -> Result<()> {
    // Axes along which x goes on as y does are one axis.
    let mut axes: Vec<(usize, usize)> = vec![];
    for (&length, &stride) in dims.iter().zip(strides).filter(|&(&length, _)| length != 1) {
        match axes.last_mut() {
            Some(last) if last.1 == stride * length => *last = (last.0 * length, stride),
            _ => axes.push((length, stride)),
        }
    }
    let elements = extent(dims.iter().product())?;
    if matches!(axes[..], [] | [(_, 1)]) {
        let from = Input(0).at(offset * to.element.bytes());
        to.launch(launch::copy(elements), [from, Output(0).into()]);
        return Ok(());
    }
    let (mut extents, mut steps) = ([1; MAX_RANK], [0; MAX_RANK]);
    for (at, &(length, stride)) in (MAX_RANK - axes.len()..).zip(&axes) {
        (extents[at], steps[at]) = (extent(length)?, extent(stride)?);
    }
    let [extent_0, extent_1, extent_2, extent_3, extent_4] = extents;
    let [stride_0, stride_1, stride_2, stride_3, stride_4] = steps;
    let offset = offset as u64;
    #[rustfmt::skip]
    let spec = StridedSpec {
        offset,
        extent_0, extent_1, extent_2, extent_3, extent_4,
        stride_0, stride_1, stride_2, stride_3, stride_4,
    };
    to.launch(launch::strided_copy(spec), [Input(0), Output(0)].map(Into::into));
    Ok(())
}

/// `BroadcastTo`, `Permute` and `Slice`.
pub fn view(node: &Node<'_>, operation: &Operation, to: &mut Lowering) -> Result<()> {
    let (x, y) = (node.input(0)?.shape, node.output(0)?.shape);
    let from = strides(&x);
    let (mut steps, mut offset) = (from, 0);
    match operation {
        Operation::BroadcastTo(_) => {
            for (step, &extent) in steps.iter_mut().zip(x.dims()) {
                *step = if extent == 1 { 0 } else { *step };
            }
        }
        Operation::Permute(axes) => {
            for (step, &axis) in steps.iter_mut().zip(axes).take(y.rank()) {
                *step = from[usize::from(axis)];
            }
        }
        Operation::Slice { axis, start, .. } => offset = start * from[*axis],
        other => return Err(Error::internal(format!("{other:?} is no view"))),
    }
    strided(y.dims(), &steps[..y.rank()], offset, to)
}

pub fn concat(node: &Node<'_>, axis: usize, to: &mut Lowering) -> Result<()> {
    let dims = node.output(0)?.shape;
    let rows: usize = dims.dims()[..axis].iter().product();
    let columns = extent(dims.elements().checked_div(rows).unwrap_or(0))?;
    extent(dims.elements())?;
    let mut start = 0;
    for first in (0..node.inputs.len()).step_by(JOINED) {
        let mut widths = [0; JOINED];
        let mut places = [Input(first); JOINED];
        for (i, input) in node.inputs.iter().enumerate().skip(first).take(JOINED) {
            widths[i - first] = extent(input.shape.elements().checked_div(rows).unwrap_or(0))?;
            places[i - first] = Input(i);
        }
        let [width_0, width_1, width_2, width_3] = widths;
        let spec = ConcatSpec { rows: extent(rows)?, columns, start, width_0, width_1, width_2, width_3 };
        let [x_0, x_1, x_2, x_3] = places;
        to.launch(launch::concat(spec), [x_0, x_1, x_2, x_3, Output(0)].map(Into::into));
        start += widths.iter().sum::<u32>();
    }
    Ok(())
}

pub fn reduce(node: &Node<'_>, reduction: Reduction, axis: usize, to: &mut Lowering) -> Result<()> {
    let shape = node.input(0)?.shape;
    let dims = shape.dims();
    extent(shape.elements())?;
    let spec = ReduceSpec {
        outer: extent(dims[..axis].iter().product())?,
        axis: extent(dims[axis])?,
        inner: extent(dims[axis + 1..].iter().product())?,
        maximum: (reduction == Reduction::Max).into(),
    };
    let launch = if spec.inner == 1 { launch::reduce_rows(spec) } else { launch::reduce_columns(spec) };
    to.launch(launch, [Input(0), Output(0)].map(Into::into));
    Ok(())
}

/// (ids, values) -> sums of the values of equal ids
pub fn scatter_rows(node: &Node<'_>, to: &mut Lowering) -> Result<()> {
    let (values, y) = (node.input(1)?.shape, node.output(0)?.shape);
    extent(values.elements())?;
    let spec =
        RowsSpec { count: extent(values.rows())?, width: extent(values.last())?, rows: extent(y.rows())? };
    let links = to.scratch(2 * size_of::<u32>() * spec.count as usize);
    to.launch(launch::fill(extent(y.elements())?, 0.0), [Output(0).into()]);
    to.launch(launch::link_ids(spec), [Input(0), links].map(Into::into));
    to.launch(launch::scatter_rows(spec), [Input(0), Input(1), links, Output(0)].map(Into::into));
    Ok(())
}

pub fn take_last(node: &Node<'_>, to: &mut Lowering) -> Result<()> {
    let x = node.input(0)?.shape;
    extent(x.elements())?;
    let spec = PickSpec { rows: extent(x.rows())?, width: extent(x.last())? };
    to.launch(launch::take_last(spec), [Input(0), Input(1), Output(0)].map(Into::into));
    Ok(())
}

pub fn scatter_last(node: &Node<'_>, to: &mut Lowering) -> Result<()> {
    let y = node.output(0)?.shape;
    extent(y.elements())?;
    let spec = PickSpec { rows: extent(y.rows())?, width: extent(y.last())? };
    to.launch(launch::scatter_last(spec), [Input(0), Input(1), Output(0)].map(Into::into));
    Ok(())
}

/// (seed) -> mask
pub fn dropout_mask(node: &Node<'_>, stream: u32, probability: f64, to: &mut Lowering) -> Result<()> {
    let spec = DropoutSpec {
        threshold: (probability * 4_294_967_296.0).round() as u64,
        elements: extent(node.output(0)?.shape.elements())?,
        stream,
        keep: rounded(1.0 / (1.0 - probability), to.element),
        unused: 0,
    };
    to.launch(launch::dropout_mask(spec), [Input(0), Output(0)].map(Into::into));
    Ok(())
}

/// (segments, or the first query's position) -> mask
pub fn mask(node: &Node<'_>, window: Option<usize>, cached: bool, to: &mut Lowering) -> Result<()> {
    let y = node.output(0)?.shape;
    extent(y.elements())?;
    let window = window.map_or(Ok(u32::MAX), extent)?;
    let spec = MaskSpec { rows: extent(y.rows())?, keys: extent(y.last())?, window };
    let launch = if cached { launch::cache_mask(spec) } else { launch::attention_mask(spec) };
    to.launch(launch, [Input(0), Output(0)].map(Into::into));
    Ok(())
}

/// (state, value): the state becomes the value.
pub fn assign(node: &Node<'_>, to: &mut Lowering) -> Result<()> {
    let elements = extent(node.input(0)?.shape.elements())?;
    to.launch(launch::copy(elements), [Input(1), Input(0)].map(Into::into));
    Ok(())
}

/// (state, rows, start): rows of the state are replaced.
pub fn write_rows(node: &Node<'_>, to: &mut Lowering) -> Result<()> {
    let (state, rows) = (node.input(0)?.shape, node.input(1)?.shape);
    extent(state.elements())?;
    let spec =
        RowsSpec { count: extent(rows.rows())?, width: extent(state.last())?, rows: extent(state.rows())? };
    to.launch(launch::write_rows(spec), [Input(1), Input(2), Input(0)].map(Into::into));
    Ok(())
}
