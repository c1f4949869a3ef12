//! SwiGLU and its gradient (Shazeer 2020, arXiv:2002.05202): silu(gate) * up, silu(g) = g * sigmoid(g).

use super::body::Body;
use super::lanes::{Map, map};
use super::number::Element;
use super::simd::Vector;
use super::split::{Split, expect_len};
use super::{In, Out};
use crate::error::Result;

/// y = silu(gate) * up
#[derive(Debug)]
pub struct SwiGlu<E> {
    gate: In<E>,
    up: In<E>,
    y: Out<E>,
    split: Split,
}

impl<E: Element> SwiGlu<E> {
    /// # Errors
    /// An internal error if the lengths differ.
    pub fn new(gate: In<E>, up: In<E>, y: Out<E>) -> Result<Self> {
        expect_len("the gate", gate.len(), y.len())?;
        expect_len("the up projection", up.len(), y.len())?;
        Ok(Self { gate, up, y, split: Split::rows(y.len(), 3 * size_of::<E>()) })
    }
}

#[inline(always)]
fn sigmoid<V: Vector>(x: V) -> V {
    let one = V::splat(1.0);
    one.div(one.add(x.mul(V::splat(-std::f32::consts::LOG2_E)).exp2()))
}

struct Forward;

impl Map<2, 1> for Forward {
    #[inline(always)]
    fn apply<V: Vector>(&self, [gate, up]: [V; 2]) -> [V; 1] {
        [gate.mul(sigmoid(gate)).mul(up)]
    }
}

struct Gradient;

impl Map<3, 2> for Gradient {
    #[inline(always)]
    fn apply<V: Vector>(&self, [gate, up, dy]: [V; 3]) -> [V; 2] {
        let (one, sigmoid) = (V::splat(1.0), sigmoid(gate));
        // d silu(g) / dg = sigmoid(g) * (1 + g * (1 - sigmoid(g)))
        let slope = sigmoid.mul(gate.mul_add(one.sub(sigmoid), one));
        [dy.mul(up).mul(slope), dy.mul(gate).mul(sigmoid)]
    }
}

impl<E: Element> Body for SwiGlu<E> {
    fn parts(&self) -> usize {
        self.split.count()
    }

    #[inline(always)]
    fn compute<V: Vector>(&self, part: usize, _scratch: &mut [u8]) {
        let range = self.split.range(part);
        let (gate, up) = (&self.gate.as_slice()[range.clone()], &self.up.as_slice()[range.clone()]);
        // SAFETY: parts are disjoint ranges of y.
        let y = unsafe { self.y.range(range) };
        map::<V, E, 2, 1>(&Forward, [gate, up], [y]);
    }
}

/// (gate, up, dy) -> dgate, dup
#[derive(Debug)]
pub struct SwiGluGrad<E> {
    gate: In<E>,
    up: In<E>,
    dy: In<E>,
    dgate: Out<E>,
    dup: Out<E>,
    split: Split,
}

impl<E: Element> SwiGluGrad<E> {
    /// # Errors
    /// An internal error if the lengths differ.
    pub fn new(gate: In<E>, up: In<E>, dy: In<E>, dgate: Out<E>, dup: Out<E>) -> Result<Self> {
        expect_len("the gate", gate.len(), dy.len())?;
        expect_len("the up projection", up.len(), dy.len())?;
        expect_len("the gate's gradient", dgate.len(), dy.len())?;
        expect_len("the up projection's gradient", dup.len(), dy.len())?;
        Ok(Self { gate, up, dy, dgate, dup, split: Split::rows(dy.len(), 5 * size_of::<E>()) })
    }
}

impl<E: Element> Body for SwiGluGrad<E> {
    fn parts(&self) -> usize {
        self.split.count()
    }

    #[inline(always)]
    fn compute<V: Vector>(&self, part: usize, _scratch: &mut [u8]) {
        let range = self.split.range(part);
        let (gate, up) = (&self.gate.as_slice()[range.clone()], &self.up.as_slice()[range.clone()]);
        let dy = &self.dy.as_slice()[range.clone()];
        // SAFETY: parts are disjoint ranges of both gradients.
        let (dgate, dup) = unsafe { (self.dgate.range(range.clone()), self.dup.range(range)) };
        map::<V, E, 3, 2>(&Gradient, [gate, up, dy], [dgate, dup]);
    }
}
