//! Root mean square normalization (Zhang and Sennrich 2019, arXiv:1910.07467) and its gradient.

use super::body::Body;
use super::lanes::{Map, map, sum_of_products};
use super::number::Element;
use super::simd::Vector;
use super::split::{Split, expect_len};
use super::{In, Out};
use crate::error::Result;

/// Columns of the weight's gradient that one part computes; each part reads all of x to normalize it.
const COLUMNS: usize = 256;

/// 1 / sqrt(mean(x^2) + epsilon)
#[inline(always)]
fn inverse_rms<V: Vector, E: Element>(x: &[E], epsilon: f32) -> f32 {
    1.0 / (sum_of_products::<V, E, 2>([x, x]) / x.len() as f32 + epsilon).sqrt()
}

struct Normalize {
    inverse: f32,
}

impl Map<2, 1> for Normalize {
    #[inline(always)]
    fn apply<V: Vector>(&self, [x, weight]: [V; 2]) -> [V; 1] {
        [x.mul(V::splat(self.inverse)).mul(weight)]
    }
}

/// inverse * (dy * weight - x * along)
struct Gradient {
    inverse: f32,
    along: f32,
}

impl Map<3, 1> for Gradient {
    #[inline(always)]
    fn apply<V: Vector>(&self, [x, dy, weight]: [V; 3]) -> [V; 1] {
        let difference = x.mul_add(V::splat(-self.along), dy.mul(weight));
        [difference.mul(V::splat(self.inverse))]
    }
}

/// As [`Gradient`], and a residual is added.
struct GradientAndResidual(Gradient);

impl Map<4, 1> for GradientAndResidual {
    #[inline(always)]
    fn apply<V: Vector>(&self, [x, dy, weight, residual]: [V; 4]) -> [V; 1] {
        let [dx] = self.0.apply([x, dy, weight]);
        [dx.add(residual)]
    }
}

/// (x [n, d], weight `[d]`) -> x / sqrt(mean(x^2) + epsilon) * weight
#[derive(Debug)]
pub struct RmsNorm<E> {
    epsilon: f32,
    x: In<E>,
    weight: In<E>,
    y: Out<E>,
    split: Split,
}

impl<E: Element> RmsNorm<E> {
    /// # Errors
    /// An internal error if the lengths do not fit.
    pub fn new(epsilon: f64, x: In<E>, weight: In<E>, y: Out<E>) -> Result<Self> {
        let width = weight.len();
        let n = x.len().checked_div(width).unwrap_or(0);
        expect_len("the rows to normalize", x.len(), n * width)?;
        expect_len("the normalized rows", y.len(), n * width)?;
        let split = Split::rows(n, 2 * width * size_of::<E>());
        Ok(Self { epsilon: epsilon as f32, x, weight, y, split })
    }
}

impl<E: Element> Body for RmsNorm<E> {
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
            let inverse = inverse_rms::<V, E>(x, self.epsilon);
            map::<V, E, 2, 1>(&Normalize { inverse }, [x, weight], [y]);
        }
    }
}

/// What the gradient reads: all are [n, d], but for the weight, `[d]`.
#[derive(Debug, Clone, Copy)]
pub struct RmsNormGradInputs<E> {
    pub x: In<E>,
    pub weight: In<E>,
    pub dy: In<E>,
    /// Added to dx.
    pub residual: Option<In<E>>,
}

/// -> dx [n, d], and dweight `[d]` where wanted.
#[derive(Debug)]
pub struct RmsNormGrad<E> {
    epsilon: f32,
    inputs: RmsNormGradInputs<E>,
    dx: Out<E>,
    dweight: Option<Out<E>>,
    rows: Split,
    columns: Split,
}

impl<E: Element> RmsNormGrad<E> {
    /// # Errors
    /// An internal error if the lengths do not fit.
    pub fn new(
        epsilon: f64,
        inputs: RmsNormGradInputs<E>,
        dx: Out<E>,
        dweight: Option<Out<E>>,
    ) -> Result<Self> {
        let RmsNormGradInputs { x, weight, dy, residual } = inputs;
        let width = weight.len();
        let n = x.len().checked_div(width).unwrap_or(0);
        expect_len("the rows to normalize", x.len(), n * width)?;
        expect_len("the result's gradient", dy.len(), n * width)?;
        expect_len("the argument's gradient", dx.len(), n * width)?;
        expect_len("the residual", residual.map_or(dx.len(), |residual| residual.len()), dx.len())?;
        if let Some(dweight) = &dweight {
            expect_len("the weight's gradient", dweight.len(), width)?;
        }
        let rows = Split::rows(n, 3 * width * size_of::<E>());
        let columns = Split::by(if dweight.is_some() { width } else { 0 }, COLUMNS);
        Ok(Self { epsilon: epsilon as f32, inputs, dx, dweight, rows, columns })
    }

    /// With r the inverse root mean square and g = dy * weight: dx = r * (g - x * r^2 * mean(g * x)).
    #[inline(always)]
    fn row_gradients<V: Vector>(&self, part: usize) {
        let RmsNormGradInputs { x, weight, dy, residual } = &self.inputs;
        let weight = weight.as_slice();
        let width = weight.len();
        let rows = self.rows.range(part);
        let elements = rows.start * width..rows.end * width;
        // SAFETY: these parts are disjoint ranges of rows.
        let dx = unsafe { self.dx.range(elements.clone()) };
        let x = x.as_slice()[elements.clone()].chunks_exact(width);
        let dy = dy.as_slice()[elements.clone()].chunks_exact(width);
        let residual = residual.as_ref().map(|residual| &residual.as_slice()[elements]);
        for (row, ((dx, x), dy)) in dx.chunks_exact_mut(width).zip(x).zip(dy).enumerate() {
            let inverse = inverse_rms::<V, E>(x, self.epsilon);
            let along = inverse * inverse * sum_of_products::<V, E, 3>([x, dy, weight]) / width as f32;
            let gradient = Gradient { inverse, along };
            match residual {
                Some(residual) => {
                    let residual = &residual[row * width..][..width];
                    let inputs = [x, dy, weight, residual];
                    map::<V, E, 4, 1>(&GradientAndResidual(gradient), inputs, [dx]);
                }
                None => map::<V, E, 3, 1>(&gradient, [x, dy, weight], [dx]),
            }
        }
    }

    /// dweight = sum over rows of dy * x * r, for one block of columns.
    #[inline(always)]
    fn weight_gradient<V: Vector>(&self, part: usize, dweight: &Out<E>) {
        let RmsNormGradInputs { x, weight, dy, .. } = &self.inputs;
        let width = weight.len();
        let columns = self.columns.range(part);
        let mut totals = [0.0f32; COLUMNS];
        let x = x.as_slice().chunks_exact(width);
        for (x, dy) in x.zip(dy.as_slice().chunks_exact(width)) {
            let inverse = inverse_rms::<V, E>(x, self.epsilon);
            let (x, dy) = (&x[columns.clone()], &dy[columns.clone()]);
            for ((total, x), dy) in totals.iter_mut().zip(x).zip(dy) {
                *total += dy.widen() * (x.widen() * inverse);
            }
        }
        // SAFETY: these parts are disjoint ranges of columns.
        let dweight = unsafe { dweight.range(columns) };
        for (dweight, total) in dweight.iter_mut().zip(totals) {
            *dweight = E::narrow(total);
        }
    }
}

impl<E: Element> Body for RmsNormGrad<E> {
    fn parts(&self) -> usize {
        self.rows.count() + self.columns.count()
    }

    #[inline(always)]
    fn compute<V: Vector>(&self, part: usize, _scratch: &mut [u8]) {
        match (part.checked_sub(self.rows.count()), &self.dweight) {
            (Some(part), Some(dweight)) => self.weight_gradient::<V>(part, dweight),
            _ => self.row_gradients::<V>(part),
        }
    }
}
