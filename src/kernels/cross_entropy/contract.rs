use std::ops::Range;

use half::bf16;

use super::block::BLOCK_WORDS;
use super::{CrossEntropyInputs, CrossEntropySpec};
use crate::kernels::matmul::{Factors, Fetch, Output, Partial, Strip};
use crate::kernels::pack::{Element, PANEL, split_halves, words};
use crate::kernels::simd::{Vector, Vectorized};

/// Words from row to row of a bf16 weight whose pairs are split.
const SPLIT_WORDS: usize = words::<bf16>(BLOCK_WORDS);

/// Adds weight^T times what a block's logits became, [width, words] times [words, lanes], reading the weight as it is
/// packed for the logits: an f32 panel has consecutive words side by side, a bf16 panel after its pairs are split.
pub struct Contraction<'a, E> {
    inputs: &'a CrossEntropyInputs<E>,
    spec: &'a CrossEntropySpec,
    /// Of bf16: pairs of the block's neighbouring words, [width, SPLIT_WORDS].
    split: &'a mut [f32],
    vocabulary: Range<usize>,
}

impl<'a, E: Element> Contraction<'a, E> {
    /// Rows of the sums: the width, rounded up to whole words.
    pub fn rows(spec: &CrossEntropySpec) -> usize {
        words::<E>(spec.width) * E::PAIR
    }

    /// 32-bit words of scratch memory.
    pub fn split_words(spec: &CrossEntropySpec) -> usize {
        if E::PAIR == 1 { 0 } else { Self::rows(spec) * SPLIT_WORDS }
    }

    pub fn new(
        inputs: &'a CrossEntropyInputs<E>,
        spec: &'a CrossEntropySpec,
        scratch: &'a mut [f32],
    ) -> Self {
        Self { inputs, spec, split: scratch, vocabulary: 0..0 }
    }

    /// The block's part of the packed weight.
    fn panels(&self) -> &'a [E] {
        let length = words::<E>(self.spec.width) * PANEL * E::PAIR;
        let (start, end) = (self.vocabulary.start / PANEL, self.vocabulary.end.div_ceil(PANEL));
        &self.inputs.packed.as_slice()[start * length..end * length]
    }

    /// Turns to a block of words.
    pub fn begin(&mut self, vocabulary: &Range<usize>) {
        self.vocabulary = vocabulary.clone();
        if E::PAIR > 1 {
            let pairs = words::<E>(self.spec.width);
            let panels = self.panels().as_ptr().cast();
            self.spec.isa.run(Split {
                panels,
                count: vocabulary.len().div_ceil(PANEL),
                pairs,
                to: &mut *self.split,
            });
        }
    }

    /// sums [rows, lanes] (+)= weight^T values, with values [words, lanes] of one group; where `rescale`, what the sums
    /// hold is multiplied by `factor` before.
    pub fn add(
        &self,
        values: &mut [f32],
        factor: &[f32],
        (accumulate, rescale): (bool, bool),
        sums: &mut [f32],
    ) {
        let lanes = factor.len();
        let isa = self.spec.isa;
        if accumulate && rescale {
            isa.run(Rescale { sums, factor });
        }
        if E::PAIR > 1 {
            isa.run(JoinRows { values, lanes });
        }
        let (count, panel) = (self.vocabulary.len(), words::<E>(PANEL));
        let whole = count / PANEL;
        if whole > 0 {
            self.multiply(0..whole, panel, (values, lanes), accumulate, sums);
        }
        if count % PANEL > 0 {
            let (values, depth) = (&values[whole * panel * lanes..], words::<E>(count % PANEL));
            self.multiply(whole..whole + 1, depth, (values, lanes), accumulate || whole > 0, sums);
        }
    }

    /// sums (+)= `depth` rows of each panel times as many rows of values.
    fn multiply(
        &self,
        panels: Range<usize>,
        depth: usize,
        (values, lanes): (&[f32], usize),
        add: bool,
        sums: &mut [f32],
    ) {
        let panel_words = words::<E>(self.spec.width) * PANEL;
        let first = panels.start;
        let base = if E::PAIR == 1 {
            Factors {
                x: self.panels().as_ptr().cast::<f32>().wrapping_add(first * panel_words),
                x_stride: PANEL,
                depth,
                segments: panels.len(),
                x_segment: panel_words,
                ..Factors::NONE
            }
        } else {
            let panel = words::<E>(PANEL);
            Factors {
                x: self.split.as_ptr().wrapping_add(first * panel),
                x_stride: SPLIT_WORDS,
                depth: (panels.len() - 1) * panel + depth,
                ..Factors::NONE
            }
        };
        let sums = sums.as_mut_ptr();
        let strip = Strip {
            pairs: E::PAIR == 2,
            base: Factors { panel: values.as_ptr(), panel_stride: lanes, ..base },
            low_rank: Factors::NONE,
            partial: Partial { sums, stride: lanes, add, keep: true },
            output: Output::F32 { residual: std::ptr::null(), y: sums },
            y_stride: lanes,
            rows: Self::rows(self.spec),
            columns: lanes,
            fetch: Fetch::Nothing,
        };
        // SAFETY: the panels have these rows, `values` the words of the panels, and `sums` is [rows, lanes].
        unsafe { strip.compute(self.spec.isa) };
    }
}

/// Splits the pairs of every row of packed panels: [panels, pairs, PANEL] to [2 * pairs, SPLIT_WORDS].
struct Split<'a> {
    panels: *const f32,
    count: usize,
    pairs: usize,
    to: &'a mut [f32],
}

impl Vectorized for Split<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        for (row, to) in self.to.chunks_exact_mut(2 * SPLIT_WORDS).take(self.pairs).enumerate() {
            let (low, high) = to.split_at_mut(SPLIT_WORDS);
            let halves = low.chunks_exact_mut(PANEL / 2).zip(high.chunks_exact_mut(PANEL / 2));
            for (panel, (low, high)) in halves.take(self.count).enumerate() {
                // SAFETY: the panels have as many rows of PANEL pairs, and both halves so many words.
                unsafe {
                    let from = self.panels.add((panel * self.pairs + row) * PANEL);
                    split_halves::<V>(from, low.as_mut_ptr(), high.as_mut_ptr());
                }
            }
        }
    }
}

/// Multiplies every row of sums by a factor for each lane.
struct Rescale<'a> {
    sums: &'a mut [f32],
    factor: &'a [f32],
}

impl Vectorized for Rescale<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        for row in self.sums.chunks_exact_mut(self.factor.len()) {
            row.iter_mut().zip(self.factor).for_each(|(sum, factor)| *sum *= factor);
        }
    }
}

/// Rounds values [words, lanes] to bf16, in place, as pairs of neighbouring rows: [words / 2, lanes, 2].
struct JoinRows<'a> {
    values: &'a mut [f32],
    lanes: usize,
}

impl Vectorized for JoinRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let lanes = self.lanes;
        let rows = self.values.len() / lanes;
        for row in (0..rows).step_by(2) {
            for lane in (0..lanes).step_by(V::LANES) {
                let at = |row: usize| row * lanes + lane;
                // SAFETY: lanes are whole vectors; both rows are read before the one that is written.
                unsafe {
                    let values = self.values.as_mut_ptr();
                    let first = V::load(values.add(at(row)));
                    let second = if row + 1 < rows { V::load(values.add(at(row + 1))) } else { V::zero() };
                    first
                        .rounded_to_bf16()
                        .join_halves(second.rounded_to_bf16())
                        .store(values.add(at(row / 2)));
                }
            }
        }
    }
}
