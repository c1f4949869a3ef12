//! One output element from the input elements at the same place.

use crate::error::Result;
use crate::graph;
use crate::kernels::body::Body;
use crate::kernels::number::{Float, Number, Real};
use crate::kernels::simd::Vector;
use crate::kernels::split::{Split, expect_len};
use crate::kernels::{In, Out};

/// y = f(x)
#[derive(Debug)]
pub struct Unary<T> {
    op: graph::Unary,
    x: In<T>,
    y: Out<T>,
    split: Split,
}

impl<T: Float> Unary<T> {
    /// # Errors
    /// An internal error if the lengths differ.
    pub fn new(op: graph::Unary, x: In<T>, y: Out<T>) -> Result<Self> {
        expect_len("the argument", x.len(), y.len())?;
        Ok(Self { op, x, y, split: Split::rows(y.len(), 2 * size_of::<T>()) })
    }
}

#[inline(always)]
fn map<T: Float>(x: &[T], y: &mut [T], f: impl Fn(T::Wide) -> T::Wide) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = T::narrow(f(x.widen()));
    }
}

impl<T: Float> Body for Unary<T> {
    fn parts(&self) -> usize {
        self.split.count()
    }

    #[inline(always)]
    fn compute<V: Vector>(&self, part: usize, _scratch: &mut [u8]) {
        let range = self.split.range(part);
        let x = &self.x.as_slice()[range.clone()];
        // SAFETY: parts are disjoint ranges of y.
        let y = unsafe { self.y.range(range) };
        let one = T::Wide::from_f64(1.0);
        match self.op {
            graph::Unary::Negate => map(x, y, |x| -x),
            graph::Unary::Exp => map(x, y, |x| x.exp()),
            graph::Unary::Log => map(x, y, |x| x.ln()),
            graph::Unary::Sqrt => map(x, y, |x| x.sqrt()),
            graph::Unary::Reciprocal => map(x, y, |x| one / x),
            graph::Unary::Sigmoid => map(x, y, |x| one / (one + (-x).exp())),
            graph::Unary::Tanh => map(x, y, |x| x.tanh()),
            graph::Unary::Sin => map(x, y, |x| x.sin()),
            graph::Unary::Cos => map(x, y, |x| x.cos()),
        }
    }
}

/// y = f(a, b)
#[derive(Debug)]
pub struct Binary<T> {
    op: graph::Binary,
    a: In<T>,
    b: In<T>,
    y: Out<T>,
    split: Split,
}

impl<T: Float> Binary<T> {
    /// # Errors
    /// An internal error if the lengths differ.
    pub fn new(op: graph::Binary, a: In<T>, b: In<T>, y: Out<T>) -> Result<Self> {
        expect_len("the left side", a.len(), y.len())?;
        expect_len("the right side", b.len(), y.len())?;
        Ok(Self { op, a, b, y, split: Split::rows(y.len(), 3 * size_of::<T>()) })
    }
}

#[inline(always)]
fn zip<T: Float>(a: &[T], b: &[T], y: &mut [T], f: impl Fn(T::Wide, T::Wide) -> T::Wide) {
    for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
        *y = T::narrow(f(a.widen(), b.widen()));
    }
}

impl<T: Float> Body for Binary<T> {
    fn parts(&self) -> usize {
        self.split.count()
    }

    #[inline(always)]
    fn compute<V: Vector>(&self, part: usize, _scratch: &mut [u8]) {
        let range = self.split.range(part);
        let (a, b) = (&self.a.as_slice()[range.clone()], &self.b.as_slice()[range.clone()]);
        // SAFETY: parts are disjoint ranges of y.
        let y = unsafe { self.y.range(range) };
        match self.op {
            graph::Binary::Add => zip(a, b, y, |a, b| a + b),
            graph::Binary::Subtract => zip(a, b, y, |a, b| a - b),
            graph::Binary::Multiply => zip(a, b, y, |a, b| a * b),
            graph::Binary::Divide => zip(a, b, y, |a, b| a / b),
            // The right side where they cannot be compared: a NaN there is kept.
            graph::Binary::Minimum => zip(a, b, y, |a, b| if a < b { a } else { b }),
            graph::Binary::Equal => zip(a, b, y, |a, b| T::Wide::from_f64(if a == b { 1.0 } else { 0.0 })),
        }
    }
}

/// y = x * multiply + add
#[derive(Debug)]
pub struct Affine<T: Float> {
    multiply: T::Wide,
    add: T::Wide,
    x: In<T>,
    y: Out<T>,
    split: Split,
}

impl<T: Float> Affine<T> {
    /// # Errors
    /// An internal error if the lengths differ.
    pub fn new(multiply: f64, add: f64, x: In<T>, y: Out<T>) -> Result<Self> {
        expect_len("the argument", x.len(), y.len())?;
        let (multiply, add) = (T::Wide::from_f64(multiply), T::Wide::from_f64(add));
        Ok(Self { multiply, add, x, y, split: Split::rows(y.len(), 2 * size_of::<T>()) })
    }
}

impl<T: Float> Body for Affine<T> {
    fn parts(&self) -> usize {
        self.split.count()
    }

    #[inline(always)]
    fn compute<V: Vector>(&self, part: usize, _scratch: &mut [u8]) {
        let range = self.split.range(part);
        let x = &self.x.as_slice()[range.clone()];
        // SAFETY: parts are disjoint ranges of y.
        let y = unsafe { self.y.range(range) };
        let (multiply, add) = (self.multiply, self.add);
        map(x, y, |x| x * multiply + add);
    }
}

/// The same numbers in another type, rounded to nearest.
#[derive(Debug)]
pub struct Cast<S, D> {
    x: In<S>,
    y: Out<D>,
    split: Split,
}

impl<S: Number, D: Float> Cast<S, D> {
    /// # Errors
    /// An internal error if the lengths differ.
    pub fn new(x: In<S>, y: Out<D>) -> Result<Self> {
        expect_len("the argument", x.len(), y.len())?;
        Ok(Self { x, y, split: Split::rows(y.len(), size_of::<S>() + size_of::<D>()) })
    }
}

impl<S: Number, D: Float> Body for Cast<S, D> {
    fn parts(&self) -> usize {
        self.split.count()
    }

    #[inline(always)]
    fn compute<V: Vector>(&self, part: usize, _scratch: &mut [u8]) {
        let range = self.split.range(part);
        // SAFETY: parts are disjoint ranges of y.
        let y = unsafe { self.y.range(range.clone()) };
        for (y, x) in y.iter_mut().zip(&self.x.as_slice()[range]) {
            *y = D::cast(*x);
        }
    }
}
