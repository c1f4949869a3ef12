//! Root mean square normalization (Zhang and Sennrich 2019, arXiv:1910.07467) and its gradient.

use super::body::Body;
use super::number::Element;
use super::simd::Vector;
use super::split::{Split, expect_len};
use super::{In, Out};
use crate::error::Result;

/// Independent partial sums along a row.
const STRIPES: usize = 32;
/// Columns of the weight's gradient that one part computes; each part reads all of x to normalize it.
const COLUMNS: usize = 256;

/// Sums a * b over two rows.
#[inline(always)]
fn dot<A: Element, B: Element>(a: &[A], b: &[B]) -> f32 {
    let mut stripes = [0.0f32; STRIPES];
    let (a_blocks, a_rest) = a.as_chunks::<STRIPES>();
    let (b_blocks, b_rest) = b.as_chunks::<STRIPES>();
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        stripes = std::array::from_fn(|i| stripes[i] + a[i].widen() * b[i].widen());
    }
    for (stripe, (a, b)) in stripes.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *stripe += a.widen() * b.widen();
    }
    stripes.iter().sum()
}

/// 1 / sqrt(mean(x^2) + epsilon)
#[inline(always)]
fn inverse_rms<E: Element>(x: &[E], epsilon: f32) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + epsilon).sqrt()
}

/// (x [n, d], weight `[d]`) -> x / sqrt(mean(x^2) + epsilon) * weight
#[derive(Debug)]
pub struct RmsNorm<E, W> {
    epsilon: f32,
    x: In<E>,
    weight: In<W>,
    y: Out<E>,
    split: Split,
}

impl<E: Element, W: Element> RmsNorm<E, W> {
    /// # Errors
    /// An internal error if the lengths do not fit.
    pub fn new(epsilon: f64, x: In<E>, weight: In<W>, y: Out<E>) -> Result<Self> {
        let width = weight.len();
        let n = x.len().checked_div(width).unwrap_or(0);
        expect_len("the rows to normalize", x.len(), n * width)?;
        expect_len("the normalized rows", y.len(), n * width)?;
        let split = Split::rows(n, 2 * width * size_of::<E>());
        Ok(Self { epsilon: epsilon as f32, x, weight, y, split })
    }
}

impl<E: Element, W: Element> Body for RmsNorm<E, W> {
    fn parts(&self) -> usize {
        self.split.count()
    }

    #[inline(always)]
    fn compute<V: Vector>(&self, part: usize, _scratch: &mut [u8]) {
        let weight = self.weight.as_slice();
        let rows = self.split.range(part);
        let elements = rows.start * weight.len()..rows.end * weight.len();
        // SAFETY: parts are disjoint ranges of rows.
        let y = unsafe { self.y.range(elements.clone()) };
        let x = &self.x.as_slice()[elements];
        for (y, x) in y.chunks_exact_mut(weight.len()).zip(x.chunks_exact(weight.len())) {
            let inverse = inverse_rms(x, self.epsilon);
            for ((y, x), weight) in y.iter_mut().zip(x).zip(weight) {
                *y = E::narrow(x.widen() * inverse * weight.widen());
            }
        }
    }
}

/// (x [n, d], weight `[d]`, dy [n, d]) -> dx [n, d], and dweight `[d]` where wanted.
#[derive(Debug)]
pub struct RmsNormGrad<E, W> {
    epsilon: f32,
    x: In<E>,
    weight: In<W>,
    dy: In<E>,
    dx: Out<E>,
    dweight: Option<Out<W>>,
    rows: Split,
    columns: Split,
}

impl<E: Element, W: Element> RmsNormGrad<E, W> {
    /// # Errors
    /// An internal error if the lengths do not fit.
    pub fn new(
        epsilon: f64,
        x: In<E>,
        weight: In<W>,
        dy: In<E>,
        dx: Out<E>,
        dweight: Option<Out<W>>,
    ) -> Result<Self> {
        let width = weight.len();
        let n = x.len().checked_div(width).unwrap_or(0);
        expect_len("the rows to normalize", x.len(), n * width)?;
        expect_len("the result's gradient", dy.len(), n * width)?;
        expect_len("the argument's gradient", dx.len(), n * width)?;
        if let Some(dweight) = &dweight {
            expect_len("the weight's gradient", dweight.len(), width)?;
        }
        let rows = Split::rows(n, 3 * width * size_of::<E>());
        let columns = Split::by(if dweight.is_some() { width } else { 0 }, COLUMNS);
        Ok(Self { epsilon: epsilon as f32, x, weight, dy, dx, dweight, rows, columns })
    }

    /// With r the inverse root mean square and g = dy * weight: dx = r * (g - x * r^2 * mean(g * x)).
    #[inline(always)]
    fn row_gradients(&self, part: usize, scratch: &mut [u8]) {
        let weight = self.weight.as_slice();
        let width = weight.len();
        // dy * weight of one row: [width]
        let scaled = &mut bytemuck::cast_slice_mut::<u8, f32>(scratch)[..width];
        let rows = self.rows.range(part);
        let elements = rows.start * width..rows.end * width;
        // SAFETY: these parts are disjoint ranges of rows.
        let dx = unsafe { self.dx.range(elements.clone()) };
        let x = self.x.as_slice()[elements.clone()].chunks_exact(width);
        let dy = self.dy.as_slice()[elements].chunks_exact(width);
        for ((dx, x), dy) in dx.chunks_exact_mut(width).zip(x).zip(dy) {
            let inverse = inverse_rms(x, self.epsilon);
            for ((scaled, dy), weight) in scaled.iter_mut().zip(dy).zip(weight) {
                *scaled = dy.widen() * weight.widen();
            }
            let along = inverse * inverse * dot(x, scaled) / width as f32;
            for ((dx, x), scaled) in dx.iter_mut().zip(x).zip(scaled.iter()) {
                *dx = E::narrow(inverse * (scaled - x.widen() * along));
            }
        }
    }

    /// dweight = sum over rows of dy * x * r, for one block of columns.
    #[inline(always)]
    fn weight_gradient(&self, part: usize, dweight: &Out<W>) {
        let width = self.weight.len();
        let columns = self.columns.range(part);
        let mut totals = [0.0f32; COLUMNS];
        let x = self.x.as_slice().chunks_exact(width);
        for (x, dy) in x.zip(self.dy.as_slice().chunks_exact(width)) {
            let inverse = inverse_rms(x, self.epsilon);
            let (x, dy) = (&x[columns.clone()], &dy[columns.clone()]);
            for ((total, x), dy) in totals.iter_mut().zip(x).zip(dy) {
                *total += dy.widen() * (x.widen() * inverse);
            }
        }
        // SAFETY: these parts are disjoint ranges of columns.
        let dweight = unsafe { dweight.range(columns) };
        for (dweight, total) in dweight.iter_mut().zip(totals) {
            *dweight = W::narrow(total);
        }
    }
}

impl<E: Element, W: Element> Body for RmsNormGrad<E, W> {
    fn parts(&self) -> usize {
        self.rows.count() + self.columns.count()
    }

    fn scratch_bytes(&self) -> usize {
        self.weight.len() * size_of::<f32>()
    }

    #[inline(always)]
    fn compute<V: Vector>(&self, part: usize, scratch: &mut [u8]) {
        match (part.checked_sub(self.rows.count()), &self.dweight) {
            (Some(part), Some(dweight)) => self.weight_gradient(part, dweight),
            _ => self.row_gradients(part, scratch),
        }
    }
}
