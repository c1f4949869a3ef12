use std::ops::Range;

use half::bf16;

use super::{Element, PANEL, words};
use crate::kernels::simd::{Vector, Vectorized};

/// Rewrites part of a packed weight [n, k] as one panel of its transpose: k outputs, contraction over n.
///
/// The panel is [n / PAIR, PANEL, PAIR], for all n of the panels of the weight that are read.
pub struct TransposedPanel<'a, E> {
    pub packed: &'a [E],
    /// k
    pub inputs: usize,
    /// First k of the panel, a multiple of [`PANEL`]. Columns beyond the last k hold anything.
    pub first: usize,
    /// Panels of the weight.
    pub panels: Range<usize>,
    /// Words: [`TransposedPanel::words`] of the panels.
    pub to: &'a mut [f32],
}

impl<E: Element> TransposedPanel<'_, E> {
    /// Words that so many panels of the weight become.
    pub const fn words(panels: usize) -> usize {
        panels * PANEL / E::PAIR * PANEL
    }
}

impl<E: Element> Vectorized for TransposedPanel<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        // [k / PAIR, PANEL] words of one panel of the weight.
        let rows = words::<E>(PANEL).min(words::<E>(self.inputs - self.first));
        let mut block = [0.0; PANEL * PANEL];
        for (panel, to) in self.panels.zip(self.to.chunks_exact_mut(Self::words(1))) {
            let at = (panel * words::<E>(self.inputs) + words::<E>(self.first)) * PANEL;
            let from = self.packed[at * E::PAIR..(at + rows * PANEL) * E::PAIR].as_ptr().cast::<f32>();
            // SAFETY: `from` has the words of `rows`, and the block those of PANEL rows.
            unsafe {
                if E::PAIR == 2 {
                    for row in 0..rows {
                        let to = block.as_mut_ptr().add(row * PANEL);
                        split_halves::<V>(from.add(row * PANEL), to, to.add(PANEL / 2));
                    }
                    transpose::<V>(block.as_ptr(), PANEL / 2, to);
                } else if rows == PANEL {
                    transpose::<V>(from, PANEL, to);
                } else {
                    std::ptr::copy_nonoverlapping(from, block.as_mut_ptr(), rows * PANEL);
                    transpose::<V>(block.as_ptr(), PANEL, to);
                }
            }
        }
    }
}

/// [PANEL, columns] to [columns, PANEL].
///
/// # Safety
/// `from` has that many words, and `to` too.
#[inline(always)]
unsafe fn transpose<V: Vector>(from: *const f32, columns: usize, to: &mut [f32]) {
    for row in (0..PANEL).step_by(V::LANES) {
        for column in (0..columns).step_by(V::LANES) {
            // SAFETY: every vector's lanes divide PANEL and PANEL / 2, so the blocks lie within both.
            unsafe {
                let to = to.as_mut_ptr().add(column * PANEL + row);
                V::transpose(from.add(row * columns + column), columns, to, PANEL);
            }
        }
    }
}

/// Splits PANEL pairs of bf16 into the first ones of all and the second ones of all.
///
/// # Safety
/// There are PANEL words at `from`, and half as many at both targets.
#[inline(always)]
pub unsafe fn split_halves<V: Vector>(from: *const f32, low: *mut f32, high: *mut f32) {
    let (low, high) = (low.cast::<bf16>(), high.cast::<bf16>());
    for column in (0..PANEL).step_by(V::LANES) {
        // SAFETY: as promised by the caller.
        unsafe { V::load(from.add(column)).split_halves(low.add(column), high.add(column)) };
    }
}
