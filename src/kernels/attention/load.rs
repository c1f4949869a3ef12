//! Rows of one head, brought from the matrices of tokens into scratch memory, and back.

use std::ops::Range;

use super::format::Format;
use super::padded;
use crate::kernels::number::Element;
use crate::kernels::simd::{Vector, prefetch};

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

    /// Asks for rows ahead of their use: they lie too far apart for the machine to see the pattern.
    #[inline(always)]
    pub fn prefetch(&self, rows: Range<usize>) {
        for row in rows {
            for line in self.row(row).chunks(64 / size_of::<E>()) {
                prefetch(line.as_ptr().cast());
            }
        }
    }

    /// to [at least rows, words]: factors of products along head_dim; zeros in rows past the end.
    #[inline(always)]
    pub fn load_along<F: Format>(&self, rows: Range<usize>, to: &mut [f32]) {
        let (words, count) = (F::words(self.head_dim), rows.len());
        for (to, row) in to.chunks_exact_mut(words).zip(rows) {
            F::along(self.row(row), to);
        }
        to[count * words..].fill(0.0);
    }

    /// to [at least rows / numbers in a word, padded head_dim]: factors of products along the rows; zeros past the end.
    #[inline(always)]
    pub fn load_across<F: Format>(&self, rows: Range<usize>, to: &mut [f32]) {
        let padded = padded(self.head_dim);
        let count = rows.len().div_ceil(F::NUMBERS);
        for (to, first) in to.chunks_exact_mut(padded).zip(rows.clone().step_by(F::NUMBERS)) {
            let second = if first + 1 < rows.end { self.row(first + 1) } else { &[] };
            F::across([self.row(first), second], to);
        }
        to[count * padded..].fill(0.0);
    }
}

/// A matrix in scratch memory, or a block of its columns: rows are `row` values apart.
#[derive(Clone, Copy)]
pub struct Place {
    pub start: usize,
    pub row: usize,
}

/// Copies a transposed block of words, `rows` by `columns`, both multiples of every vector's width.
///
/// # Panics
/// If the block reaches past the end of a matrix.
#[inline(always)]
pub fn transpose<V: Vector>(
    [rows, columns]: [usize; 2],
    (from, source): (&[f32], Place),
    (to, target): (&mut [f32], Place),
) {
    assert!(rows.is_multiple_of(V::LANES) && columns.is_multiple_of(V::LANES) && rows * columns > 0);
    assert!(source.start + (rows - 1) * source.row + columns <= from.len());
    assert!(target.start + (columns - 1) * target.row + rows <= to.len());
    for row in (0..rows).step_by(V::LANES) {
        for column in (0..columns).step_by(V::LANES) {
            // SAFETY: both blocks lie within their matrices, as checked above.
            unsafe {
                let from = from.as_ptr().add(source.start + row * source.row + column);
                let to = to.as_mut_ptr().add(target.start + column * target.row + row);
                V::transpose(from, source.row, to, target.row);
            }
        }
    }
}

/// Writes one row of a head, scaled.
#[inline(always)]
pub fn store<E: Element>(from: &[f32], scale: f32, to: &mut [E]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = E::narrow(from * scale);
    }
}
