//! Matrix products of operands that change at every step.

mod double;
mod grid;
mod scratch;
mod single;
mod strip;
#[cfg(test)]
mod tests;

pub(in crate::kernels) use grid::Grid;
pub(in crate::kernels) use scratch::Scratch;
pub(in crate::kernels) use strip::{Factors, Strip, TILE_ROWS};

use super::simd::Isa;
use super::split::expect_len;
use super::{In, Kernel, Out};
use crate::error::Result;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MatMulSpec {
    /// How many products of equal extents lie one after another.
    pub batch: usize,
    pub rows: usize,
    /// k
    pub inner: usize,
    pub columns: usize,
    /// The left side is stored [inner, rows].
    pub transpose_left: bool,
    /// The right side is stored [columns, inner].
    pub transpose_right: bool,
    pub isa: Isa,
}

/// `[batch, rows, inner]` times `[batch, inner, columns]`, for f32 and, in plain loops, f64.
#[derive(Debug)]
pub struct MatMul<T> {
    left: In<T>,
    right: In<T>,
    product: Out<T>,
    spec: MatMulSpec,
}

impl<T> MatMul<T> {
    /// # Errors
    /// If the memory does not have the lengths that the extents ask for.
    pub fn new(left: In<T>, right: In<T>, product: Out<T>, spec: MatMulSpec) -> Result<Self> {
        let MatMulSpec { batch, rows, inner, columns, .. } = spec;
        expect_len("the left side of a product", left.len(), batch * rows * inner)?;
        expect_len("the right side of a product", right.len(), batch * inner * columns)?;
        expect_len("the product", product.len(), batch * rows * columns)?;
        Ok(Self { left, right, product, spec })
    }

    /// Elements between (rows, inner) of the left side.
    fn left_strides(&self) -> (usize, usize) {
        if self.spec.transpose_left { (1, self.spec.rows) } else { (self.spec.inner, 1) }
    }

    /// Elements between (inner, columns) of the right side.
    fn right_strides(&self) -> (usize, usize) {
        if self.spec.transpose_right { (1, self.spec.inner) } else { (self.spec.columns, 1) }
    }
}
