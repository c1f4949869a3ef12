//! The register-tiled matrix product that every step of attention is made of.

use crate::kernels::simd::Vector;

/// The left matrix of a product, read element by element: element (m, k) is `values[m * row + k * column]`.
#[derive(Clone, Copy)]
pub struct Left<'a> {
    pub values: &'a [f32],
    pub row: usize,
    pub column: usize,
}

/// What a product does with the values already there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Into {
    Overwrite,
    Add,
}

/// c [rows, columns] = (or +=) a [rows, depth] * b [depth, columns], b and c row-major without gaps. `columns` is a
/// multiple of two vectors.
///
/// # Panics
/// If a matrix is too short for the extents.
#[inline(always)]
pub fn product<V: Vector>(
    [rows, depth, columns]: [usize; 3],
    a: Left<'_>,
    b: &[f32],
    c: &mut [f32],
    into: Into,
) {
    if rows == 0 || columns == 0 {
        return;
    }
    assert!(columns.is_multiple_of(2 * V::LANES) && b.len() >= depth * columns && c.len() >= rows * columns);
    assert!(depth == 0 || a.values.len() > (rows - 1) * a.row + (depth - 1) * a.column);
    let tile = Tile { depth, strides: [a.row, a.column], columns, into };
    for column in (0..columns).step_by(2 * V::LANES) {
        let mut row = 0;
        while row < rows {
            // SAFETY: the extents were checked above, and every tile ends within them.
            row += unsafe {
                let a = a.values.as_ptr().add(row * a.row);
                let (b, c) = (b.as_ptr().add(column), c.as_mut_ptr().add(row * columns + column));
                match rows - row {
                    8.. if V::REGISTERS >= 32 => tile.run::<V, 8>(a, b, c),
                    4.. => tile.run::<V, 4>(a, b, c),
                    _ => tile.run::<V, 1>(a, b, c),
                }
            };
        }
    }
}

/// One register tile of the result: `ROWS` rows, two vectors wide.
struct Tile {
    depth: usize,
    strides: [usize; 2],
    columns: usize,
    into: Into,
}

impl Tile {
    /// Returns the rows done.
    ///
    /// # Safety
    /// `a`, `b` and `c` point to the tile's first elements, and the tile lies within the matrices.
    #[inline(always)]
    unsafe fn run<V: Vector, const ROWS: usize>(&self, a: *const f32, b: *const f32, c: *mut f32) -> usize {
        // SAFETY: promised by the caller.
        unsafe {
            let mut sums = [[V::zero(); 2]; ROWS];
            if self.into == Into::Add {
                for (row, sums) in sums.iter_mut().enumerate() {
                    let c = c.add(row * self.columns);
                    *sums = [V::load(c), V::load(c.add(V::LANES))];
                }
            }
            for k in 0..self.depth {
                let b = b.add(k * self.columns);
                let (left, right) = (V::load(b), V::load(b.add(V::LANES)));
                for (row, sums) in sums.iter_mut().enumerate() {
                    let factor = V::splat(*a.add(row * self.strides[0] + k * self.strides[1]));
                    *sums = [factor.mul_add(left, sums[0]), factor.mul_add(right, sums[1])];
                }
            }
            for (row, sums) in sums.iter().enumerate() {
                let c = c.add(row * self.columns);
                sums[0].store(c);
                sums[1].store(c.add(V::LANES));
            }
        }
        ROWS
    }
}
