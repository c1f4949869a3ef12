//! Gated linear units and their gradients (Shazeer 2020, arXiv:2002.05202): f(gate) * up.

use std::fmt::Debug;
use std::marker::PhantomData;

use super::body::Body;
use super::lanes::{Map, map};
use super::number::Element;
use super::simd::Vector;
use super::split::{Split, expect_len};
use super::{In, Out};
use crate::error::Result;

/// silu(gate) * up
pub type SwiGlu<E> = Gated<E, Silu>;
/// (gate, up, dy) -> dgate, dup
pub type SwiGluGrad<E> = GatedGrad<E, Silu>;
/// gelu(gate) * up
pub type GeGlu<E> = Gated<E, GeluTanh>;
/// (gate, up, dy) -> dgate, dup
pub type GeGluGrad<E> = GatedGrad<E, GeluTanh>;

/// A gate's function. Both methods must be `#[inline(always)]`.
pub trait Gate: Debug + Send + Sync + 'static {
    /// f(x)
    fn value<V: Vector>(x: V) -> V;

    /// f(x) / x, which the gradient multiplies by x, and f'(x).
    fn slopes<V: Vector>(x: V) -> [V; 2];
}

/// x * sigmoid(x)
#[derive(Debug)]
pub struct Silu;

impl Gate for Silu {
    #[inline(always)]
    fn value<V: Vector>(x: V) -> V {
        x.mul(sigmoid(x))
    }

    #[inline(always)]
    fn slopes<V: Vector>(x: V) -> [V; 2] {
        let (one, sigmoid) = (V::splat(1.0), sigmoid(x));
        [sigmoid, sigmoid.mul(x.mul_add(one.sub(sigmoid), one))]
    }
}

/// x * (1 + tanh(u)) / 2 = x * sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3) (Hendrycks and Gimpel 2016,
/// arXiv:1606.08415).
#[derive(Debug)]
pub struct GeluTanh;

/// 2 sqrt(2 / pi)
const LINEAR: f32 = 1.595_769;
const CUBIC: f32 = 0.044_715 * LINEAR;

impl GeluTanh {
    /// 2 u
    #[inline(always)]
    fn inner<V: Vector>(x: V) -> V {
        x.mul(x.mul(x).mul_add(V::splat(CUBIC), V::splat(LINEAR)))
    }
}

impl Gate for GeluTanh {
    #[inline(always)]
    fn value<V: Vector>(x: V) -> V {
        x.mul(sigmoid(Self::inner(x)))
    }

    #[inline(always)]
    fn slopes<V: Vector>(x: V) -> [V; 2] {
        let inner = Self::inner(x);
        // 1 - sigmoid(2 u) would lose its digits where x times the slope of u is large.
        let (ratio, rest) = (sigmoid(inner), sigmoid(V::zero().sub(inner)));
        let growth = x.mul(x.mul(x).mul_add(V::splat(3.0 * CUBIC), V::splat(LINEAR)));
        [ratio, ratio.mul(growth.mul_add(rest, V::splat(1.0)))]
    }
}

/// y = f(gate) * up
#[derive(Debug)]
pub struct Gated<E, G> {
    gate: In<E>,
    up: In<E>,
    y: Out<E>,
    split: Split,
    function: PhantomData<G>,
}

impl<E: Element, G: Gate> Gated<E, G> {
    /// # Errors
    /// An internal error if the lengths differ.
    pub fn new(gate: In<E>, up: In<E>, y: Out<E>) -> Result<Self> {
        expect_len("the gate", gate.len(), y.len())?;
        expect_len("the up projection", up.len(), y.len())?;
        let split = Split::rows(y.len(), 3 * size_of::<E>());
        Ok(Self { gate, up, y, split, function: PhantomData })
    }
}

#[inline(always)]
fn sigmoid<V: Vector>(x: V) -> V {
    let one = V::splat(1.0);
    one.add(x.mul(V::splat(-std::f32::consts::LOG2_E)).exp2()).reciprocal()
}

struct Forward<G>(PhantomData<G>);

impl<G: Gate> Map<2, 1> for Forward<G> {
    #[inline(always)]
    fn apply<V: Vector>(&self, [gate, up]: [V; 2]) -> [V; 1] {
        [G::value(gate).mul(up)]
    }
}

struct Gradient<G>(PhantomData<G>);

impl<G: Gate> Map<3, 2> for Gradient<G> {
    #[inline(always)]
    fn apply<V: Vector>(&self, [gate, up, dy]: [V; 3]) -> [V; 2] {
        let [ratio, slope] = G::slopes(gate);
        [dy.mul(up).mul(slope), dy.mul(gate).mul(ratio)]
    }
}

/// As [`Gradient`], and f(gate) * up.
struct GradientAndValue<G>(PhantomData<G>);

impl<G: Gate> Map<3, 3> for GradientAndValue<G> {
    #[inline(always)]
    fn apply<V: Vector>(&self, [gate, up, dy]: [V; 3]) -> [V; 3] {
        let [ratio, slope] = G::slopes(gate);
        [dy.mul(up).mul(slope), dy.mul(gate).mul(ratio), gate.mul(ratio).mul(up)]
    }
}

/// Writes dgate, dup and, where there is room for it, f(gate) * up.
#[inline(always)]
pub fn gradient<V: Vector, E: Element, G: Gate>(
    [gate, up, dy]: [&[E]; 3],
    [dgate, dup]: [&mut [E]; 2],
    value: Option<&mut [E]>,
) {
    match value {
        Some(value) => {
            map::<V, E, 3, 3>(&GradientAndValue::<G>(PhantomData), [gate, up, dy], [dgate, dup, value]);
        }
        None => map::<V, E, 3, 2>(&Gradient::<G>(PhantomData), [gate, up, dy], [dgate, dup]),
    }
}

impl<E: Element, G: Gate> Body for Gated<E, G> {
    fn parts(&self) -> usize {
        self.split.count()
    }

    #[inline(always)]
    fn compute<V: Vector>(&self, part: usize, _scratch: &mut [u8]) {
        let range = self.split.range(part);
        let (gate, up) = (&self.gate.as_slice()[range.clone()], &self.up.as_slice()[range.clone()]);
        // SAFETY: parts are disjoint ranges of y.
        let y = unsafe { self.y.range(range) };
        map::<V, E, 2, 1>(&Forward::<G>(PhantomData), [gate, up], [y]);
    }
}

/// (gate, up, dy) -> dgate, dup
#[derive(Debug)]
pub struct GatedGrad<E, G> {
    gate: In<E>,
    up: In<E>,
    dy: In<E>,
    dgate: Out<E>,
    dup: Out<E>,
    split: Split,
    function: PhantomData<G>,
}

impl<E: Element, G: Gate> GatedGrad<E, G> {
    /// # Errors
    /// An internal error if the lengths differ.
    pub fn new(gate: In<E>, up: In<E>, dy: In<E>, dgate: Out<E>, dup: Out<E>) -> Result<Self> {
        expect_len("the gate", gate.len(), dy.len())?;
        expect_len("the up projection", up.len(), dy.len())?;
        expect_len("the gate's gradient", dgate.len(), dy.len())?;
        expect_len("the up projection's gradient", dup.len(), dy.len())?;
        let split = Split::rows(dy.len(), 5 * size_of::<E>());
        Ok(Self { gate, up, dy, dgate, dup, split, function: PhantomData })
    }
}

impl<E: Element, G: Gate> Body for GatedGrad<E, G> {
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
        gradient::<V, E, G>([gate, up, dy], [dgate, dup], None);
    }
}
