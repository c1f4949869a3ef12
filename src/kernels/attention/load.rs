//! Rows of one head, brought from the matrices of tokens into scratch memory as f32, and back.

use std::ops::Range;

use super::QUERIES;
use crate::kernels::number::Element;

/// One head of a row-major matrix of tokens: columns `offset..offset + head_dim` of rows `stride` apart.
#[derive(Clone, Copy)]
pub struct Head<'a, E> {
    pub values: &'a [E],
    pub stride: usize,
    pub offset: usize,
    pub head_dim: usize,
}

impl<'a, E: Element> Head<'a, E> {
    #[inline(always)]
    pub fn row(&self, row: usize) -> &'a [E] {
        let start = row * self.stride + self.offset;
        &self.values[start..start + self.head_dim]
    }

    /// to [rows, padded head_dim]: scaled, zeros in the padding.
    #[inline(always)]
    pub fn load(&self, rows: Range<usize>, scale: f32, to: &mut [f32], padded: usize) {
        for (to, row) in to.chunks_exact_mut(padded).zip(rows) {
            let (values, padding) = to.split_at_mut(self.head_dim);
            for (to, from) in values.iter_mut().zip(self.row(row)) {
                *to = from.widen() * scale;
            }
            padding.fill(0.0);
        }
    }
}

/// from [count, padded] -> to [head_dim, QUERIES], zeros in columns that have no row.
#[inline(always)]
pub fn transpose(from: &[f32], count: usize, padded: usize, head_dim: usize, to: &mut [f32]) {
    for (dim, to) in to.chunks_exact_mut(QUERIES).take(head_dim).enumerate() {
        for (query, to) in to.iter_mut().enumerate() {
            *to = if query < count { from[query * padded + dim] } else { 0.0 };
        }
    }
}

/// from [head_dim, QUERIES] -> one row of a head: column `query` times `scale`.
#[inline(always)]
pub fn store_column<E: Element>(from: &[f32], query: usize, scale: f32, to: &mut [E]) {
    for (to, from) in to.iter_mut().zip(from[query..].iter().step_by(QUERIES)) {
        *to = E::narrow(from * scale);
    }
}
