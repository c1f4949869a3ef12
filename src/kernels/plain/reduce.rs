//! Sums and maxima along one axis.

use crate::error::Result;
use crate::graph::Reduction;
use crate::kernels::body::Body;
use crate::kernels::number::Float;
use crate::kernels::simd::Vector;
use crate::kernels::split::{Split, expect_len};
use crate::kernels::{In, Out};

/// Columns reduced side by side.
const BLOCK: usize = 128;
/// Independent partial results along a contiguous row.
const STRIPES: usize = 16;

/// x [outer, axis, inner] -> y [outer, inner], accumulated in f64.
#[derive(Debug)]
pub struct Reduce<T> {
    reduction: Reduction,
    axis: usize,
    inner: usize,
    x: In<T>,
    y: Out<T>,
    /// Where inner is 1, rows; else blocks of columns within each outer index.
    split: Split,
}

impl<T: Float> Reduce<T> {
    /// # Errors
    /// An internal error if the lengths do not fit the extents.
    pub fn new(reduction: Reduction, [outer, axis, inner]: [usize; 3], x: In<T>, y: Out<T>) -> Result<Self> {
        expect_len("the reduced tensor", x.len(), outer * axis * inner)?;
        expect_len("the result of a reduction", y.len(), outer * inner)?;
        let split = if inner == 1 {
            Split::rows(outer, axis * size_of::<T>())
        } else {
            Split::by(outer * inner.div_ceil(BLOCK), 1)
        };
        Ok(Self { reduction, axis, inner, x, y, split })
    }

    #[inline(always)]
    fn row(&self, row: &[T]) -> f64 {
        let mut stripes = [self.start(); STRIPES];
        let (blocks, rest) = row.as_chunks::<STRIPES>();
        for block in blocks {
            self.fold(&mut stripes, block);
        }
        self.fold(&mut stripes, rest);
        stripes.into_iter().fold(self.start(), |total, value| self.combine(total, value))
    }

    #[inline(always)]
    fn fold(&self, totals: &mut [f64], values: &[T]) {
        match self.reduction {
            Reduction::Sum => totals.iter_mut().zip(values).for_each(|(t, x)| *t += x.to_f64()),
            Reduction::Max => totals.iter_mut().zip(values).for_each(|(t, x)| *t = larger(*t, x.to_f64())),
        }
    }

    #[inline(always)]
    fn combine(&self, a: f64, b: f64) -> f64 {
        match self.reduction {
            Reduction::Sum => a + b,
            Reduction::Max => larger(a, b),
        }
    }

    fn start(&self) -> f64 {
        match self.reduction {
            Reduction::Sum => 0.0,
            Reduction::Max => f64::NEG_INFINITY,
        }
    }
}

/// The larger of the two; NaN if either is, so that a diverging run shows.
#[inline(always)]
fn larger(a: f64, b: f64) -> f64 {
    if a > b || a.is_nan() { a } else { b }
}

impl<T: Float> Body for Reduce<T> {
    fn parts(&self) -> usize {
        self.split.count()
    }

    #[inline(always)]
    fn compute<V: Vector>(&self, part: usize, _scratch: &mut [u8]) {
        let x = self.x.as_slice();
        if self.inner == 1 {
            let rows = self.split.range(part);
            // SAFETY: parts are disjoint ranges of rows, one element of y each.
            let y = unsafe { self.y.range(rows.clone()) };
            for (y, row) in y.iter_mut().zip(rows) {
                *y = T::from_f64(self.row(&x[row * self.axis..(row + 1) * self.axis]));
            }
            return;
        }
        let blocks = self.inner.div_ceil(BLOCK);
        let (outer, first) = (part / blocks, part % blocks * BLOCK);
        let width = BLOCK.min(self.inner - first);
        let mut totals = [self.start(); BLOCK];
        for i in 0..self.axis {
            let at = (outer * self.axis + i) * self.inner + first;
            self.fold(&mut totals, &x[at..at + width]);
        }
        let at = outer * self.inner + first;
        // SAFETY: every part has its own block of columns of its own outer index.
        let y = unsafe { self.y.range(at..at + width) };
        for (y, total) in y.iter_mut().zip(totals) {
            *y = T::from_f64(total);
        }
    }
}
