//! Kernels of plain operations.

use super::Binding;
use crate::error::Result;
use crate::graph::{DType, MAX_RANK, Operation, Shape};
use crate::kernels::number::{Float, Number};
use crate::kernels::plain::{
    Affine, AttentionMask, Binary, CacheMask, Cast, Concat, Copy, DropoutMask, Embedding, Fill, Reduce,
    RopeTable, ScatterLast, ScatterRows, StridedCopy, TakeLast, Unary, WriteRows,
};
use crate::kernels::{In, Kernel};

pub(super) fn build<T: Float>(at: &Binding<'_>) -> Result<Box<dyn Kernel>> {
    use Operation as Op;
    let whole = at.output(0)?;
    let y = whole.output::<T>();
    let x = || Ok(at.input(0)?.input::<T>());
    Ok(match at.operation {
        Op::Constant(value) => Box::new(Fill::new(T::from_f64(value.0), y)),
        Op::RopeTable(table) => {
            Box::new(RopeTable::new(table.positions, table.frequencies.clone(), table.kind, y)?)
        }
        Op::Unary(kind) => Box::new(Unary::new(*kind, x()?, y)?),
        Op::Binary(kind) => Box::new(Binary::new(*kind, x()?, at.input(1)?.input(), y)?),
        Op::Affine { multiply, add } => Box::new(Affine::new(multiply.0, add.0, x()?, y)?),
        Op::Reshape(_) | Op::Detach => Box::new(Copy::new(x()?, y)?),
        Op::Assign => Box::new(Copy::new(at.input(1)?.input::<T>(), y)?),
        Op::BroadcastTo(shape) => {
            let from = at.input(0)?.tensor.shape;
            let mut strides = strides(&from);
            for (stride, &extent) in strides.iter_mut().zip(from.dims()) {
                *stride = if extent == 1 { 0 } else { *stride };
            }
            Box::new(StridedCopy::new(shape.dims(), &strides[..shape.rank()], 0, x()?, y)?)
        }
        Op::Permute(axes) => {
            let from = strides(&at.input(0)?.tensor.shape);
            let shape = whole.tensor.shape;
            let strides: Vec<usize> =
                axes[..shape.rank()].iter().map(|&axis| from[usize::from(axis)]).collect();
            Box::new(StridedCopy::new(shape.dims(), &strides, 0, x()?, y)?)
        }
        Op::Slice { axis, start, .. } => {
            let strides = strides(&at.input(0)?.tensor.shape);
            let shape = whole.tensor.shape;
            Box::new(StridedCopy::new(
                shape.dims(),
                &strides[..shape.rank()],
                start * strides[*axis],
                x()?,
                y,
            )?)
        }
        Op::Concat { axis } => {
            let outer = whole.tensor.shape.dims()[..*axis].iter().product();
            let inputs: Vec<In<T>> = at.inputs.iter().map(|input| input.input()).collect();
            Box::new(Concat::new(outer, &inputs, y)?)
        }
        Op::Reduce { reduction, axis } => {
            let shape = at.input(0)?.tensor.shape;
            let dims = shape.dims();
            let extents = [dims[..*axis].iter().product(), dims[*axis], dims[axis + 1..].iter().product()];
            Box::new(Reduce::new(*reduction, extents, x()?, y)?)
        }
        Op::Embedding => {
            let width = at.input(0)?.tensor.shape.last();
            Box::new(Embedding::new(width, x()?, at.input(1)?.input(), y)?)
        }
        Op::ScatterRows { .. } => {
            let width = at.input(1)?.tensor.shape.last();
            Box::new(ScatterRows::new(width, at.input(0)?.input(), at.input(1)?.input(), y)?)
        }
        Op::TakeLast => {
            Box::new(TakeLast::new(at.input(0)?.tensor.shape.last(), x()?, at.input(1)?.input(), y)?)
        }
        Op::ScatterLast { size } => Box::new(ScatterLast::new(*size, x()?, at.input(1)?.input(), y)?),
        Op::AttentionMask { batch, seq, window, .. } => {
            Box::new(AttentionMask::new([*batch, *seq], *window, at.input(0)?.input(), y)?)
        }
        Op::CacheMask { seq, capacity, window, .. } => {
            Box::new(CacheMask::new([*seq, *capacity], *window, at.input(0)?.input(), y)?)
        }
        Op::DropoutMask { stream, probability, .. } => {
            Box::new(DropoutMask::new(*stream, probability.0, at.input(0)?.input(), y)?)
        }
        Op::WriteRows => {
            let width = whole.tensor.shape.last();
            Box::new(WriteRows::new(width, at.input(1)?.input::<T>(), at.input(2)?.input(), y)?)
        }
        _ => return Err(at.unsupported()),
    })
}

pub(super) fn cast(at: &Binding<'_>) -> Result<Box<dyn Kernel>> {
    match at.input(0)?.tensor.dtype {
        DType::F32 => cast_from::<f32>(at),
        DType::F64 => cast_from::<f64>(at),
        DType::Bf16 => cast_from::<half::bf16>(at),
        DType::U32 => cast_from::<u32>(at),
    }
}

fn cast_from<S: Number>(at: &Binding<'_>) -> Result<Box<dyn Kernel>> {
    let (x, y) = (at.input(0)?.input::<S>(), at.output(0)?);
    Ok(match y.tensor.dtype {
        DType::F32 => Box::new(Cast::<S, f32>::new(x, y.output())?),
        DType::F64 => Box::new(Cast::<S, f64>::new(x, y.output())?),
        DType::Bf16 => Box::new(Cast::<S, half::bf16>::new(x, y.output())?),
        DType::U32 => return Err(at.unsupported()),
    })
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
