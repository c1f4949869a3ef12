//! Many rows times a panel of so few columns that two words of k for each of them fill a vector.

use super::output::Target;
use super::strip::{Factors, Strip, TILE_ROWS, each_row, next_tile};
use crate::kernels::simd::{Isa, Vector, Vectorized};

/// Most columns of a folded panel.
pub const FOLDED_COLUMNS: usize = 8;

/// A strip whose base panel is [depth / 2, FOLDED_COLUMNS, 2]: even lanes add up the even words of k, odd lanes the odd
/// ones.
pub struct FoldedStrip(pub Strip);

impl FoldedStrip {
    /// Whether a product may be taken so: half of each vector would lie idle otherwise.
    pub fn suits(isa: Isa, pairs: bool, depth: usize, columns: usize) -> bool {
        let isa = if pairs { isa.for_pairs() } else { isa };
        isa == Isa::Avx512 && columns <= FOLDED_COLUMNS && depth.is_multiple_of(2)
    }

    /// # Safety
    /// As for [`Strip::compute`]; x has whole rows of words, and [`Self::suits`] has agreed.
    pub unsafe fn compute(self, isa: Isa) {
        if self.0.pairs { isa.run(Vouched::<true>(self.0)) } else { isa.run(Vouched::<false>(self.0)) }
    }

    /// Brings two words of k for each of the first columns together, in place: panel is [depth, width].
    pub fn fold(panel: &mut [f32], width: usize, depth: usize) {
        for row in 0..depth / 2 {
            let mut folded = [0.0; 2 * FOLDED_COLUMNS];
            let (first, second) = panel[2 * row * width..][..2 * width].split_at(width);
            let words = folded.chunks_exact_mut(2).zip(first.iter().zip(second));
            words.for_each(|(to, (first, second))| to.copy_from_slice(&[*first, *second]));
            panel[row * folded.len()..][..folded.len()].copy_from_slice(&folded);
        }
    }
}

/// A strip whose pointers someone has vouched for.
struct Vouched<const PAIRS: bool>(Strip);

impl<const PAIRS: bool> Vectorized for Vouched<PAIRS> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let mut row = 0;
        while row < self.0.rows {
            let rows = next_tile(self.0.rows - row, TILE_ROWS);
            macro_rules! by_rows {
                ($($n:literal)*) => {
                    match rows {
                        // SAFETY: the extents lie within those that the strip promises.
                        $($n => unsafe { self.tile::<V, $n>(row) },)*
                        _ => debug_assert!(false, "a tile of {rows} rows"),
                    }
                };
            }
            by_rows!(1 2 4 6 8 10 12 14);
            row += rows;
        }
    }
}

impl<const PAIRS: bool> Vouched<PAIRS> {
    #[inline(always)]
    unsafe fn tile<V: Vector, const R: usize>(&self, row: usize) {
        let Strip { partial, output, y_stride, columns, .. } = self.0;
        let Factors { x, x_stride, mut panel, depth, .. } = self.0.base;
        let mut sums = [[V::zero(); 1]; R];
        // Every third row has a pointer; the two after it are reached by the stride in the address.
        let mut x: [*const f32; 5] = std::array::from_fn(|i| x.wrapping_add((row + 3 * i) * x_stride));
        let x_stride = x_stride * size_of::<f32>();
        // SAFETY: the strip promises `row + R` rows of x, `depth / 2` rows of the panel, and this part of y.
        unsafe {
            for _ in 0..depth / 2 {
                let weights = V::load(panel);
                each_row!(I in 0..R {
                    match I % 3 {
                        0 => sums[I][0].add_twofold::<PAIRS, 0>(weights, x[I / 3], x_stride),
                        1 => sums[I][0].add_twofold::<PAIRS, 1>(weights, x[I / 3], x_stride),
                        _ => sums[I][0].add_twofold::<PAIRS, 2>(weights, x[I / 3], x_stride),
                    }
                });
                x = x.map(|x| x.wrapping_add(2));
                panel = panel.wrapping_add(2 * FOLDED_COLUMNS);
            }
            each_row!(I in 0..R {
                sums[I][0] = sums[I][0].fold();
            });
            Target { partial, output, y_stride, row, column: 0 }.store_columns(sums, columns);
        }
    }
}
