//! The register-tiled matrix product that attention is made of.

use super::format::Format;
use crate::kernels::simd::Vector;

/// The left matrix of a product, read word by word: word (m, k) is `values[m * row + k * column]`.
#[derive(Clone, Copy)]
pub struct Left<'a> {
    pub values: &'a [f32],
    pub row: usize,
    pub column: usize,
}

impl Left<'_> {
    /// # Panics
    /// If there are fewer rows or columns of words.
    #[inline(always)]
    pub fn expect(&self, rows: usize, depth: usize) {
        assert!(rows * depth == 0 || self.values.len() > (rows - 1) * self.row + (depth - 1) * self.column);
    }
}

/// What a product does with the values already there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Into {
    Overwrite,
    Add,
}

/// Adds to the sums of `ROWS` rows their words of the left matrix times `right`, a row of the right matrix.
///
/// # Safety
/// The words of the left matrix, `stride` bytes from row to row, can be read, and the format suits the machine.
#[inline(always)]
pub unsafe fn accumulate<V: Vector, F: Format, const ROWS: usize, const C: usize>(
    sums: &mut [[V; C]; ROWS],
    right: &[V; C],
    left: *const f32,
    stride: usize,
) {
    for (i, sums) in sums.chunks_mut(3).enumerate() {
        let base = left.wrapping_byte_add(3 * i * stride);
        // SAFETY: as the caller promised.
        unsafe {
            for (index, sums) in sums.iter_mut().enumerate() {
                match (index, F::PAIRS) {
                    (0, false) => V::add_words::<false, C, 0>(sums, right, base, stride),
                    (1, false) => V::add_words::<false, C, 1>(sums, right, base, stride),
                    (_, false) => V::add_words::<false, C, 2>(sums, right, base, stride),
                    (0, true) => V::add_words::<true, C, 0>(sums, right, base, stride),
                    (1, true) => V::add_words::<true, C, 1>(sums, right, base, stride),
                    (_, true) => V::add_words::<true, C, 2>(sums, right, base, stride),
                }
            }
        }
    }
}

/// c [rows, columns] = (or +=) a [rows, depth words] * b [depth words, columns], b and c row-major without gaps.
/// `columns` is a multiple of a vector.
///
/// # Panics
/// If a matrix is too short for the extents.
#[inline(always)]
pub fn product<V: Vector, F: Format>(
    [rows, depth, columns]: [usize; 3],
    a: Left<'_>,
    b: &[f32],
    c: &mut [f32],
    into: Into,
) {
    assert!(columns.is_multiple_of(V::LANES) && b.len() >= depth * columns && c.len() >= rows * columns);
    a.expect(rows, depth);
    let strip = Strip { rows, depth, a, columns, into };
    let mut column = 0;
    while column < columns {
        let (b, c) = (b[column..].as_ptr(), c[column..].as_mut_ptr());
        // SAFETY: the extents were checked above, and the strip's vectors lie within the columns.
        column += V::LANES
            * unsafe {
                match (columns - column) / V::LANES {
                    1 => strip.run::<V, F, 8, 1>(b, c),
                    2.. if V::REGISTERS < 32 => strip.run::<V, F, 4, 2>(b, c),
                    2 => strip.run::<V, F, 12, 2>(b, c),
                    4 => strip.run::<V, F, 6, 4>(b, c),
                    _ => strip.run::<V, F, 8, 3>(b, c),
                }
            };
    }
}

/// Some columns of a product.
struct Strip<'a> {
    rows: usize,
    depth: usize,
    a: Left<'a>,
    columns: usize,
    into: Into,
}

impl Strip<'_> {
    /// `C` vectors wide, `ROWS` rows at a time. Returns `C`.
    ///
    /// # Safety
    /// `b` and `c` point to the strip's first elements, and the strip lies within the matrices.
    #[inline(always)]
    unsafe fn run<V: Vector, F: Format, const ROWS: usize, const C: usize>(
        &self,
        b: *const f32,
        c: *mut f32,
    ) -> usize {
        let mut row = 0;
        while row < self.rows {
            // SAFETY: as the caller promised; no tile has more rows than are left.
            row += unsafe {
                let (a, c) = (self.a.values.as_ptr().add(row * self.a.row), c.add(row * self.columns));
                match self.rows - row {
                    rows if rows >= ROWS => self.tile::<V, F, ROWS, C>(a, b, c),
                    4.. => self.tile::<V, F, 4, C>(a, b, c),
                    2.. => self.tile::<V, F, 2, C>(a, b, c),
                    _ => self.tile::<V, F, 1, C>(a, b, c),
                }
            };
        }
        C
    }

    /// Returns the rows done.
    ///
    /// # Safety
    /// `a`, `b` and `c` point to the tile's first elements, and the tile lies within the matrices.
    #[inline(always)]
    unsafe fn tile<V: Vector, F: Format, const ROWS: usize, const C: usize>(
        &self,
        a: *const f32,
        b: *const f32,
        c: *mut f32,
    ) -> usize {
        // SAFETY: promised by the caller.
        unsafe {
            let mut sums = [[V::zero(); C]; ROWS];
            if self.into == Into::Add {
                for (row, sums) in sums.iter_mut().enumerate() {
                    *sums = load(c.add(row * self.columns));
                }
            }
            for k in 0..self.depth {
                let right = load(b.add(k * self.columns));
                accumulate::<V, F, ROWS, C>(&mut sums, &right, a.add(k * self.a.column), 4 * self.a.row);
            }
            for (row, sums) in sums.iter().enumerate() {
                for (i, sum) in sums.iter().enumerate() {
                    sum.store(c.add(row * self.columns + i * V::LANES));
                }
            }
        }
        ROWS
    }
}

/// # Safety
/// `from` is valid for reading `C` vectors.
#[inline(always)]
pub unsafe fn load<V: Vector, const C: usize>(from: *const f32) -> [V; C] {
    let mut vectors = [V::zero(); C];
    for (i, vector) in vectors.iter_mut().enumerate() {
        // SAFETY: promised by the caller.
        *vector = unsafe { V::load(from.add(i * V::LANES)) };
    }
    vectors
}
