//! Matrix products of operands that change at every step.

mod ahead;
mod double;
mod folded;
mod grid;
mod output;
mod product;
mod rows;
mod scratch;
mod side;
#[cfg(test)]
mod speed;
mod strip;
#[cfg(test)]
mod tests;

pub(in crate::kernels) use grid::{Block, Grid, MANY_PARTS, even, even_rows};
pub(in crate::kernels) use output::{Output, Partial, Written};
pub(in crate::kernels) use rows::{Rows, elements_mut};
pub(in crate::kernels) use scratch::Scratch;
pub(in crate::kernels) use side::Side;
pub(in crate::kernels) use strip::{After, Factors, Fetch, Strip, TILE_ROWS};

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

/// `[batch, rows, inner]` times `[batch, inner, columns]`: f32 or bf16 summed in f32, or f64 in plain loops. A product
/// of bf16 may be f32.
#[derive(Debug)]
pub struct MatMul<E, P = E> {
    left: In<E>,
    right: In<E>,
    product: Out<P>,
    spec: MatMulSpec,
}

/// Products whose extents are known only when they run.
pub(in crate::kernels) trait Grouped: Kernel {
    /// Scratch memory that suffices for every product with at most these extents.
    fn most_scratch_bytes(spec: &MatMulSpec) -> usize;
}

impl<E, P> MatMul<E, P> {
    /// # Errors
    /// If the memory does not have the lengths that the extents ask for.
    pub fn new(left: In<E>, right: In<E>, product: Out<P>, spec: MatMulSpec) -> Result<Self> {
        let MatMulSpec { batch, rows, inner, columns, .. } = spec;
        expect_len("the left side of a product", left.len(), batch * rows * inner)?;
        expect_len("the right side of a product", right.len(), batch * inner * columns)?;
        expect_len("the product", product.len(), batch * rows * columns)?;
        Ok(Self { left, right, product, spec })
    }
}
