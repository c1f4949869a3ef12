//! The bias of a linear layer.

use super::body::Body;
use super::lanes::{Map, map};
use super::number::Element;
use super::simd::Vector;
use super::split::{Split, expect_len};
use super::{In, Out};
use crate::error::Result;

/// (x [n, d], bias `[d]`) -> x + bias, in every row.
#[derive(Debug)]
pub struct AddBias<E> {
    x: In<E>,
    bias: In<E>,
    y: Out<E>,
    split: Split,
}

impl<E: Element> AddBias<E> {
    /// # Errors
    /// An internal error if the lengths do not fit.
    pub fn new(x: In<E>, bias: In<E>, y: Out<E>) -> Result<Self> {
        let width = bias.len();
        let n = y.len().checked_div(width).unwrap_or(0);
        expect_len("the rows that get a bias", x.len(), n * width)?;
        expect_len("the rows with their bias", y.len(), n * width)?;
        let split = Split::rows(n, 2 * width * size_of::<E>());
        Ok(Self { x, bias, y, split })
    }
}

struct Sum;

impl Map<2, 1> for Sum {
    #[inline(always)]
    fn apply<V: Vector>(&self, [x, bias]: [V; 2]) -> [V; 1] {
        [x.add(bias)]
    }
}

impl<E: Element> Body for AddBias<E> {
    fn parts(&self) -> usize {
        self.split.count()
    }

    #[inline(always)]
    fn compute<V: Vector>(&self, part: usize, _scratch: &mut [u8]) {
        let bias = self.bias.as_slice();
        let rows = self.split.range(part);
        let elements = rows.start * bias.len()..rows.end * bias.len();
        // SAFETY: parts are disjoint ranges of rows.
        let y = unsafe { self.y.range(elements.clone()) };
        let x = &self.x.as_slice()[elements];
        for (y, x) in y.chunks_exact_mut(bias.len()).zip(x.chunks_exact(bias.len())) {
            map::<V, E, 2, 1>(&Sum, [x, bias], [y]);
        }
    }
}
