//! Frozen weights laid out once for the matrix kernels.
//!
//! A packed weight is a row of panels, each holding [`PANEL`] outputs of the product: [n / PANEL, k, PANEL] for f32,
//! [n / PANEL, k / 2, PANEL, 2] for bf16, whose dot product takes pairs of k. Outputs beyond n and the odd last k of
//! bf16 are zero. The layout is the same for every instruction set, so that a packed weight can be stored.

mod embedding;
#[cfg(test)]
mod tests;

pub use embedding::PackedEmbedding;

use half::bf16;

use super::split::expect_len;
use super::{In, Kernel, Out};
use crate::error::Result;

/// Outputs per panel: two AVX-512 vectors.
pub const PANEL: usize = 32;

/// Panels that one part packs.
const PANELS_PER_PART: usize = 4;

/// A number that a weight can be stored in.
pub trait Element: Copy + Send + Sync + 'static {
    /// How many consecutive k lie together in a panel.
    const PAIR: usize;
    const ZERO: Self;

    fn from_f32(value: f32) -> Self;
    fn to_f32(self) -> f32;
}

impl Element for f32 {
    const PAIR: usize = 1;
    const ZERO: Self = 0.0;

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
}

impl Element for bf16 {
    const PAIR: usize = 2;
    const ZERO: Self = bf16::ZERO;

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        bf16::from_f32(value)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        bf16::to_f32(self)
    }
}

/// How many elements a packed weight of n outputs and k inputs takes.
pub fn packed_len<E: Element>(n: usize, k: usize) -> usize {
    n.next_multiple_of(PANEL) * k.next_multiple_of(E::PAIR)
}

/// The product that a weight is packed for: [rows, inputs] -> [rows, outputs].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackSpec {
    /// n
    pub outputs: usize,
    /// k, the contracted extent.
    pub inputs: usize,
    /// The weight is stored [inputs, outputs] instead of [outputs, inputs].
    pub transpose_weight: bool,
}

/// Lays a weight out in panels.
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
        let PackSpec { outputs, inputs, .. } = spec;
        expect_len("the weight to pack", weight.len(), outputs * inputs)?;
        expect_len("the packed weight", packed.len(), packed_len::<D>(outputs, inputs))?;
        Ok(Self { weight, packed, spec })
    }

    fn pack_panel(&self, first: usize, panel: &mut [D]) {
        let PackSpec { outputs, inputs, transpose_weight } = self.spec;
        let weight = self.weight.as_slice();
        let columns = PANEL.min(outputs - first);
        if columns < PANEL || inputs % D::PAIR > 0 {
            panel.fill(D::ZERO);
        }
        if transpose_weight {
            for k in 0..inputs {
                let row = &weight[k * outputs + first..][..columns];
                for (column, value) in row.iter().enumerate() {
                    panel[offset::<D>(k, column)] = D::from_f32(value.to_f32());
                }
            }
        } else {
            for column in 0..columns {
                let row = &weight[(first + column) * inputs..][..inputs];
                for (k, value) in row.iter().enumerate() {
                    panel[offset::<D>(k, column)] = D::from_f32(value.to_f32());
                }
            }
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
        let panel_len = packed_len::<D>(PANEL, self.spec.inputs);
        let panels = self.spec.outputs.div_ceil(PANEL);
        for panel in part * PANELS_PER_PART..panels.min((part + 1) * PANELS_PER_PART) {
            // SAFETY: panels are disjoint, and each belongs to one part.
            let packed = unsafe { self.packed.range(panel * panel_len..(panel + 1) * panel_len) };
            self.pack_panel(panel * PANEL, packed);
        }
    }
}
