//! The sum of the squares of all elements of several tensors: a gradient's squared norm.

use super::body::Body;
use super::number::Element;
use super::simd::Vector;
use super::split::expect_len;
use super::{In, Out};
use crate::error::Result;

/// Independent partial sums, so that additions overlap.
const STRIPES: usize = 16;

/// (any number of tensors) -> f32 `[1]`. One part: a sum is never split. Accumulates in f64.
#[derive(Debug)]
pub struct SumOfSquares<E> {
    tensors: Vec<In<E>>,
    total: Out<f32>,
}

impl<E: Element> SumOfSquares<E> {
    /// # Errors
    /// An internal error if the result is not one element.
    pub fn new(tensors: Vec<In<E>>, total: Out<f32>) -> Result<Self> {
        expect_len("the sum of squares", total.len(), 1)?;
        Ok(Self { tensors, total })
    }
}

#[inline(always)]
fn add_squares<E: Element>(stripes: &mut [f64], values: &[E]) {
    for (stripe, value) in stripes.iter_mut().zip(values) {
        let value = f64::from(value.widen());
        *stripe += value * value;
    }
}

impl<E: Element> Body for SumOfSquares<E> {
    fn parts(&self) -> usize {
        1
    }

    #[inline(always)]
    fn compute<V: Vector>(&self, _part: usize, _scratch: &mut [u8]) {
        let mut stripes = [0.0; STRIPES];
        for tensor in &self.tensors {
            let (blocks, rest) = tensor.as_slice().as_chunks::<STRIPES>();
            for block in blocks {
                add_squares(&mut stripes, block);
            }
            add_squares(&mut stripes, rest);
        }
        // SAFETY: there is one part.
        let total = unsafe { self.total.range(0..1) };
        total[0] = stripes.iter().sum::<f64>() as f32;
    }
}
