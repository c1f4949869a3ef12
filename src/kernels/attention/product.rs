//! The register-tiled matrix product that every step of attention is made of.

use crate::kernels::lanes::Lanes;

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
pub fn product<L: Lanes>(
    [rows, depth, columns]: [usize; 3],
    a: Left<'_>,
    b: &[f32],
    c: &mut [f32],
    into: Into,
) {
    if rows == 0 || columns == 0 {
        return;
    }
    assert!(columns.is_multiple_of(2 * L::WIDTH) && b.len() >= depth * columns && c.len() >= rows * columns);
    assert!(depth == 0 || a.values.len() > (rows - 1) * a.row + (depth - 1) * a.column);
    let tile = Tile { depth, strides: [a.row, a.column], columns, into };
    for column in (0..columns).step_by(2 * L::WIDTH) {
        let mut row = 0;
        while row < rows {
            // SAFETY: the extents were checked above, and every tile ends within them.
            row += unsafe {
                let a = a.values.as_ptr().add(row * a.row);
                let (b, c) = (b.as_ptr().add(column), c.as_mut_ptr().add(row * columns + column));
                match rows - row {
                    8.. if L::TILE_ROWS >= 8 => tile.run::<L, 8>(a, b, c),
                    4.. => tile.run::<L, 4>(a, b, c),
                    _ => tile.run::<L, 1>(a, b, c),
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
    unsafe fn run<L: Lanes, const ROWS: usize>(&self, a: *const f32, b: *const f32, c: *mut f32) -> usize {
        // SAFETY: promised by the caller.
        unsafe {
            let mut sums = [[L::splat(0.0); 2]; ROWS];
            if self.into == Into::Add {
                for (row, sums) in sums.iter_mut().enumerate() {
                    let c = c.add(row * self.columns);
                    *sums = [L::load(c), L::load(c.add(L::WIDTH))];
                }
            }
            for k in 0..self.depth {
                let b = b.add(k * self.columns);
                let (left, right) = (L::load(b), L::load(b.add(L::WIDTH)));
                for (row, sums) in sums.iter_mut().enumerate() {
                    let factor = L::splat(*a.add(row * self.strides[0] + k * self.strides[1]));
                    *sums = [L::fma(factor, left, sums[0]), L::fma(factor, right, sums[1])];
                }
            }
            for (row, sums) in sums.iter().enumerate() {
                let c = c.add(row * self.columns);
                L::store(c, sums[0]);
                L::store(c.add(L::WIDTH), sums[1]);
            }
        }
        ROWS
    }
}
