//! Probabilities and the scores' gradient of a slab of queries and a tile of keys, recomputed for the gradient.

use super::format::Format;
use super::product::{Left, accumulate, load};
use crate::kernels::simd::Vector;

/// What a slab and a tile are, all in scratch memory.
pub struct Scores<'a> {
    /// [keys, words of head_dim]
    pub k: Left<'a>,
    /// [keys, words of head_dim], laid out as k.
    pub v: Left<'a>,
    /// [words of head_dim, columns]
    pub q: &'a [f32],
    /// [words of head_dim, columns]
    pub dout: &'a [f32],
    /// Multiplies scores, after tanh where they are capped: the softmax's scale, in units of log 2.
    pub factor: f32,
    /// Multiplies scores before tanh, where they are capped softly.
    pub cap_factor: Option<f32>,
    /// `[columns]`: minus the log-sum-exp, in units of log 2.
    pub offset: &'a [f32],
    /// `[columns]`: rowsum(dout * out).
    pub delta: &'a [f32],
    /// [keys, width]: infinity for the keys that queries of any head see, a huge negative number for others; none where
    /// all are seen.
    pub limits: Option<&'a [f32]>,
    /// Queries of each head.
    pub width: usize,
    /// [keys, words of head_dim, columns]; the number of keys is even.
    pub extents: [usize; 3],
}

/// Factors of products.
pub struct Factors<'a> {
    /// [keys, words of columns]: probabilities.
    pub p: &'a mut [f32],
    /// [keys, words of columns]: the scores' gradient.
    pub ds: &'a mut [f32],
    /// [words of keys, columns]: the same; only where words are pairs.
    pub ds_across: &'a mut [f32],
}

impl Scores<'_> {
    /// p = 2^(factor * k q + offset), ds = p * (v dout - delta); where scores are capped, with t = tanh(cap_factor * k q),
    /// p = 2^(factor * t + offset), ds = p * (v dout - delta) * (1 - t^2)
    ///
    /// # Panics
    /// If a matrix is too short for the extents.
    #[inline(always)]
    pub fn run<V: Vector, F: Format>(&self, to: &mut Factors<'_>) {
        let [keys, depth, columns] = self.extents;
        self.k.expect(keys, depth);
        self.v.expect(keys, depth);
        assert!(
            keys.is_multiple_of(2)
                && columns.is_multiple_of(self.width)
                && self.width.is_multiple_of(V::LANES)
        );
        assert!(self.q.len() >= depth * columns && self.dout.len() >= depth * columns);
        assert!(self.offset.len() == columns && self.delta.len() == columns);
        assert!(self.limits.is_none_or(|limits| limits.len() >= keys * self.width));
        let words = keys * columns / F::NUMBERS;
        assert!(to.p.len() >= words && to.ds.len() >= words && (!F::PAIRS || to.ds_across.len() >= words));
        let mut column = 0;
        while column < columns {
            let vectors = (columns - column) / V::LANES;
            // SAFETY: the extents were checked above, and the strip's vectors lie within the columns.
            column += V::LANES
                * unsafe {
                    match vectors {
                        1 if self.cap_factor.is_some() => self.strip::<V, F, true, 2, 1>(column, to),
                        2.. if self.cap_factor.is_some() => self.strip::<V, F, true, 2, 2>(column, to),
                        1 => self.strip::<V, F, false, 2, 1>(column, to),
                        2.. if V::REGISTERS < 32 => self.strip::<V, F, false, 2, 2>(column, to),
                        2 | 4 => self.strip::<V, F, false, 6, 2>(column, to),
                        _ => self.strip::<V, F, false, 4, 3>(column, to),
                    }
                };
        }
    }

    /// # Safety
    /// `C` vectors from `column` on lie within the columns.
    #[inline(always)]
    unsafe fn strip<V: Vector, F: Format, const CAPPED: bool, const ROWS: usize, const C: usize>(
        &self,
        column: usize,
        to: &mut Factors<'_>,
    ) -> usize {
        let mut row = 0;
        while row < self.extents[0] {
            // SAFETY: as the caller promised; no tile has more rows than are left.
            row += unsafe {
                match self.extents[0] - row {
                    rows if rows >= ROWS => self.tile::<V, F, CAPPED, ROWS, C>(row, column, to),
                    _ => self.tile::<V, F, CAPPED, 2, C>(row, column, to),
                }
            };
        }
        C
    }

    /// Both products of a tile stay in registers until they are factors of others. Returns the rows done.
    ///
    /// # Safety
    /// `ROWS` rows from `row` on and `C` vectors from `column` on lie within the matrices.
    #[inline(always)]
    unsafe fn tile<V: Vector, F: Format, const CAPPED: bool, const ROWS: usize, const C: usize>(
        &self,
        row: usize,
        column: usize,
        to: &mut Factors<'_>,
    ) -> usize {
        let [_, depth, columns] = self.extents;
        let (mut s, mut dp) = ([[V::zero(); C]; ROWS], [[V::zero(); C]; ROWS]);
        // SAFETY: promised by the caller.
        unsafe {
            let (k, v) = (self.k.values.as_ptr(), self.v.values.as_ptr());
            for word in 0..depth {
                let (right, left) = (word * columns + column, row * self.k.row + word);
                let q = load(self.q.as_ptr().add(right));
                accumulate::<V, F, ROWS, C>(&mut s, &q, k.add(left), 4 * self.k.row);
                let dout = load(self.dout.as_ptr().add(right));
                accumulate::<V, F, ROWS, C>(&mut dp, &dout, v.add(left), 4 * self.v.row);
            }
            for i in 0..C {
                let column = column + i * V::LANES;
                let offset = V::load(self.offset.as_ptr().add(column));
                let delta = V::load(self.delta.as_ptr().add(column));
                for j in (0..ROWS).step_by(2) {
                    let mut pair = [V::zero(); 2];
                    for (j, ds) in (j..).zip(&mut pair) {
                        let (mut score, mut gap) = (s[j][i], dp[j][i].sub(delta));
                        if CAPPED {
                            score = score.mul(V::splat(self.cap_factor.unwrap_or(1.0))).tanh();
                            gap = gap.mul(V::splat(1.0).sub(score.mul(score)));
                        }
                        let score = self.limited(score, row + j, column);
                        let p = score.mul_add(V::splat(self.factor), offset).exp2();
                        *ds = p.mul(gap);
                        let start = (row + j) * columns / F::NUMBERS;
                        F::store_along(p, to.p.as_mut_ptr().add(start), column);
                        F::store_along(*ds, to.ds.as_mut_ptr().add(start), column);
                    }
                    if F::PAIRS {
                        let to = to.ds_across.as_mut_ptr().add(column);
                        F::store_across(pair, to, row + j, columns);
                    }
                }
            }
        }
        ROWS
    }

    /// # Safety
    /// The row and the vector at the column lie within the matrix.
    #[inline(always)]
    unsafe fn limited<V: Vector>(&self, score: V, row: usize, column: usize) -> V {
        match self.limits {
            // SAFETY: promised by the caller; a row of limits holds for every head.
            Some(limits) => unsafe {
                V::load(limits.as_ptr().add(row * self.width + column % self.width)).min(score)
            },
            None => score,
        }
    }
}
