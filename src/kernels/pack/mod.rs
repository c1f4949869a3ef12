//! Frozen weights laid out once for the matrix kernels.
//!
//! A packed weight [n, k] is a row of panels, each holding [`PANEL`] outputs: [n / PANEL, k, PANEL] for f32,
//! [n / PANEL, k / 2, PANEL, 2] for bf16, whose dot product takes pairs of k. Outputs beyond n and the odd last k of
//! bf16 are zero. The layout is the same for every instruction set, so that a packed weight can be stored.
//!
//! The product with the transposed weight reads the same panels: [`TransposedPanel`].

mod embedding;
#[cfg(test)]
mod tests;
mod transposed;

use std::ops::Range;

use half::bf16;

use super::split::expect_len;
use super::{In, Kernel, Out, number};
use crate::error::Result;

pub use embedding::PackedEmbedding;
pub use transposed::{TransposedPanel, split_halves};

/// Outputs per panel: two AVX-512 vectors.
pub const PANEL: usize = 32;

/// Panels that one part packs.
const PANELS_PER_PART: usize = 4;

/// A number that a weight can be stored in.
pub trait Element: number::Element {
    /// How many consecutive k lie together in a word of 32 bits.
    const PAIR: usize;
}

impl Element for f32 {
    const PAIR: usize = 1;
}

impl Element for bf16 {
    const PAIR: usize = 2;
}

/// Words of 32 bits that a run of k takes.
pub const fn words<E: Element>(k: usize) -> usize {
    k.div_ceil(E::PAIR)
}

/// How many elements a packed weight of n outputs and k inputs takes.
pub fn packed_len<E: Element>(n: usize, k: usize) -> usize {
    n.next_multiple_of(PANEL) * k.next_multiple_of(E::PAIR)
}

/// The extents of a weight: [n, k].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackSpec {
    /// n
    pub outputs: usize,
    /// k
    pub inputs: usize,
}

/// Lays a weight [n, k] out in panels.
#[derive(Debug)]
pub struct Pack<S, D> {
    weight: In<S>,
    packed: Out<D>,
    spec: PackSpec,
}

impl<S: Element, D: Element> Pack<S, D> {
    /// # Errors
    /// If the memory does not have the lengths that the extents ask for.
    pub fn new(weight: In<S>, packed: Out<D>, spec: PackSpec) -> Result<Self> {
        let PackSpec { outputs, inputs } = spec;
        expect_len("the weight to pack", weight.len(), outputs * inputs)?;
        expect_len("the packed weight", packed.len(), packed_len::<D>(outputs, inputs))?;
        Ok(Self { weight, packed, spec })
    }
}

/// Packs some outputs of a matrix whose elements are `stride` apart from output to output and `step` from k to k:
/// [k / PAIR, PANEL, PAIR].
pub fn pack_panel<S: Element, D: Element>(
    matrix: &[S],
    (stride, step): (usize, usize),
    (outputs, inputs): (Range<usize>, Range<usize>),
    panel: &mut [D],
) {
    if outputs.len() < PANEL || !inputs.len().is_multiple_of(D::PAIR) {
        panel.fill(D::narrow(0.0));
    }
    for (column, output) in outputs.enumerate() {
        for (k, input) in inputs.clone().enumerate() {
            let value = matrix[output * stride + input * step];
            panel[offset::<D>(k, column)] = D::narrow(value.widen());
        }
    }
}

/// Where element (k, column) lies in its panel.
#[inline(always)]
fn offset<E: Element>(k: usize, column: usize) -> usize {
    (k / E::PAIR * PANEL + column) * E::PAIR + k % E::PAIR
}

impl<S: Element, D: Element> Kernel for Pack<S, D> {
    fn parts(&self) -> usize {
        self.spec.outputs.div_ceil(PANEL * PANELS_PER_PART)
    }

    fn run(&self, part: usize, _scratch: &mut [u8]) {
        let PackSpec { outputs, inputs } = self.spec;
        let panel_len = packed_len::<D>(PANEL, inputs);
        let panels = outputs.div_ceil(PANEL);
        for panel in part * PANELS_PER_PART..panels.min((part + 1) * PANELS_PER_PART) {
            // SAFETY: panels are disjoint, and each belongs to one part.
            let packed = unsafe { self.packed.range(panel * panel_len..(panel + 1) * panel_len) };
            let columns = panel * PANEL..outputs.min((panel + 1) * PANEL);
            pack_panel(self.weight.as_slice(), (inputs, 1), (columns, 0..inputs), packed);
        }
    }
}
