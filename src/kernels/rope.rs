//! Rotary position embedding (Su et al. 2021, arXiv:2104.09864) of the halves of each head.

use super::body::Body;
use super::number::Element;
use super::simd::Vector;
use super::split::{Split, expect_len};
use super::{In, Out};
use crate::error::{Error, Result};

/// (x [n, heads * head_dim], cos [n, head_dim / 2], sin [n, head_dim / 2]) -> [n, heads * head_dim]
#[derive(Debug)]
pub struct Rope<E, C> {
    width: usize,
    half: usize,
    inverse: bool,
    x: In<E>,
    cos: In<C>,
    sin: In<C>,
    y: Out<E>,
    split: Split,
}

impl<E: Element, C: Element> Rope<E, C> {
    /// `width` is heads * head_dim; `inverse` rotates back.
    ///
    /// # Errors
    /// An internal error if `width` is no multiple of an even `head_dim`, or if the lengths do not fit.
    pub fn new(
        [width, head_dim]: [usize; 2],
        inverse: bool,
        x: In<E>,
        [cos, sin]: [In<C>; 2],
        y: Out<E>,
    ) -> Result<Self> {
        if head_dim == 0 || head_dim % 2 != 0 || width % head_dim != 0 || width == 0 {
            return Err(Error::internal(format!("rows of {width} hold no heads of {head_dim}")));
        }
        let (n, half) = (y.len() / width, head_dim / 2);
        expect_len("the rotated rows", y.len(), n * width)?;
        expect_len("the rows to rotate", x.len(), n * width)?;
        expect_len("the cosines", cos.len(), n * half)?;
        expect_len("the sines", sin.len(), n * half)?;
        let split = Split::rows(n, 2 * width * size_of::<E>());
        Ok(Self { width, half, inverse, x, cos, sin, y, split })
    }
}

impl<E: Element, C: Element> Body for Rope<E, C> {
    fn parts(&self) -> usize {
        self.split.count()
    }

    #[inline(always)]
    fn compute<V: Vector>(&self, part: usize, _scratch: &mut [u8]) {
        let (rows, half) = (self.split.range(part), self.half);
        let sign = if self.inverse { -1.0 } else { 1.0 };
        let elements = rows.start * self.width..rows.end * self.width;
        // SAFETY: parts are disjoint ranges of rows.
        let y = unsafe { self.y.range(elements.clone()) };
        let x = &self.x.as_slice()[elements];
        let heads = y.chunks_exact_mut(2 * half).zip(x.chunks_exact(2 * half));
        for (index, (y, x)) in heads.enumerate() {
            let row = rows.start + index / (self.width / (2 * half));
            let cos = &self.cos.as_slice()[row * half..(row + 1) * half];
            let sin = &self.sin.as_slice()[row * half..(row + 1) * half];
            let (first, second) = x.split_at(half);
            let (y_first, y_second) = y.split_at_mut(half);
            let outputs = y_first.iter_mut().zip(y_second);
            let inputs = first.iter().zip(second).zip(cos.iter().zip(sin));
            for ((y1, y2), ((a, b), (cos, sin))) in outputs.zip(inputs) {
                let (a, b, cos, sin) = (a.widen(), b.widen(), cos.widen(), sin.widen() * sign);
                *y1 = E::narrow(a * cos - b * sin);
                *y2 = E::narrow(b * cos + a * sin);
            }
        }
    }
}
