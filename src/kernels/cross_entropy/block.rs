//! Logits of a block of the vocabulary, transposed: a token is a lane, so that sums over words need no shuffling and
//! the packed weight is read as it lies.

use std::ops::Range;

use super::chunk::{CHUNK, Chunk};
use super::{CrossEntropyInputs, CrossEntropySpec};
use crate::kernels::matmul::{Factors, Fetch, Output, Partial, Strip};
use crate::kernels::pack::{Element, PANEL, words};
use crate::kernels::simd::{Vector, Vectorized};

/// Words of vocabulary that are projected, and contracted, at a time: their weights stay in the second-level cache.
pub const BLOCK_WORDS: usize = 6 * PANEL;
/// 32-bit words of the longest run of k: the hidden states' panel stays in cache.
const RUN_WORDS: usize = 768;
/// Below any logit that matters, yet finite.
const LOWEST: f32 = -1e30;

/// Projects words from a multiple of [`PANEL`] on: for each group of lanes [words, lanes of the group].
pub fn project<E: Element>(
    inputs: &CrossEntropyInputs<E>,
    spec: &CrossEntropySpec,
    chunk: &Chunk,
    hidden: &[f32],
    (vocabulary, logits): (Range<usize>, &mut [f32]),
) {
    let depth = words::<E>(spec.width);
    let packed = inputs.packed.as_slice().as_ptr().cast::<f32>();
    for run in (0..depth).step_by(RUN_WORDS) {
        for first in vocabulary.clone().step_by(PANEL) {
            let panel = packed.wrapping_add(first * depth + run * PANEL);
            for group in chunk.groups() {
                let lanes = group.len();
                let to = group.start * vocabulary.len() + (first - vocabulary.start) * lanes;
                let base = Factors {
                    x: panel,
                    x_stride: 1,
                    x_step: PANEL,
                    panel: hidden[group.start * depth + run * lanes..].as_ptr(),
                    panel_stride: lanes,
                    depth: RUN_WORDS.min(depth - run),
                    next: panel.wrapping_add(depth * PANEL),
                    ..Factors::NONE
                };
                let sums = logits[to..].as_mut_ptr();
                let strip = Strip {
                    pairs: E::PAIR == 2,
                    base,
                    low_rank: Factors::NONE,
                    partial: Partial { sums, stride: lanes, add: run > 0, keep: true },
                    output: Output::F32 { residual: std::ptr::null(), y: sums },
                    y_stride: lanes,
                    rows: PANEL.min(vocabulary.end - first),
                    columns: lanes,
                    fetch: Fetch::Nothing,
                };
                // SAFETY: the packed weight has these words, `hidden` and `logits` the lanes of the group.
                unsafe { strip.compute(spec.isa) };
            }
        }
    }
}

/// What is known of each lane's softmax after some blocks.
pub struct Softmax {
    /// Largest logit, but for the target's.
    pub largest: [f32; CHUNK],
    /// Sum of e^(logit - largest), but for the target's.
    pub sum: [f32; CHUNK],
    /// The target's logit.
    pub target: [f32; CHUNK],
    /// What the last block multiplied earlier sums by.
    pub factor: [f32; CHUNK],
}

/// The whole of a lane's softmax.
pub struct Total {
    pub log_sum_exp: f32,
    pub loss: f32,
    /// The factor that makes e^(logit - largest) a probability.
    pub scale: f32,
    /// Probability of all words but the target, without cancellation.
    pub others: f32,
}

impl Softmax {
    pub fn new() -> Self {
        Self { largest: [LOWEST; CHUNK], sum: [0.0; CHUNK], target: [0.0; CHUNK], factor: [1.0; CHUNK] }
    }

    /// Takes the targets out of a block's logits, so that what is left is summed without cancellation.
    pub fn take_targets(
        &mut self,
        chunk: &Chunk,
        targets: &[u32],
        (vocabulary, logits): (&Range<usize>, &mut [f32]),
    ) {
        for group in chunk.groups() {
            for (lane, &token) in chunk.tokens().iter().enumerate().take(group.end).skip(group.start) {
                let target = targets[token] as usize;
                if vocabulary.contains(&target) {
                    let row = group.start * vocabulary.len() + (target - vocabulary.start) * group.len();
                    let logit = &mut logits[row + lane - group.start];
                    self.target[lane] = std::mem::replace(logit, f32::NEG_INFINITY);
                }
            }
        }
    }

    pub fn total(&self, lane: usize) -> Total {
        let (largest, target) = (self.largest[lane], self.target[lane]);
        let shift = largest.max(target);
        let factor = (largest - shift).exp();
        let others = self.sum[lane] * factor;
        let sum = others + (target - shift).exp();
        let log_sum_exp = sum.ln() + shift;
        Total { log_sum_exp, loss: sum.ln() + (shift - target), scale: factor / sum, others: others / sum }
    }
}

/// Replaces a block of logits [words, lanes] by e^(logit - largest) and adds their sums.
pub struct Exponentials<'a> {
    pub softmax: &'a mut Softmax,
    pub group: Range<usize>,
    pub logits: &'a mut [f32],
}

impl Vectorized for Exponentials<'_> {
    /// Whether earlier sums have to be scaled.
    type Output = bool;

    #[inline(always)]
    fn run<V: Vector>(self) -> bool {
        let lanes = self.group.len();
        let Softmax { largest, sum, factor, .. } = self.softmax;
        let mut rescale = false;
        for lane in (0..lanes).step_by(V::LANES) {
            let at = self.group.start + lane;
            let columns = || (0..self.logits.len()).step_by(lanes).map(|row| row + lane);
            // SAFETY: lanes are whole vectors, in every row and in the arrays of `Softmax`.
            unsafe {
                let before = V::load(largest[at..].as_ptr());
                let mut highest = before;
                for column in columns() {
                    highest = V::load(self.logits.as_ptr().add(column)).max(highest);
                }
                let scale = before.sub(highest).exp();
                let mut total = V::zero();
                for column in columns() {
                    let logit = self.logits.as_mut_ptr().add(column);
                    let value = V::load(logit).sub(highest).exp();
                    value.store(logit);
                    total = total.add(value);
                }
                V::load(sum[at..].as_ptr()).mul_add(scale, total).store(sum[at..].as_mut_ptr());
                highest.store(largest[at..].as_mut_ptr());
                scale.store(factor[at..].as_mut_ptr());
                rescale |= factor[at..at + V::LANES].iter().any(|&factor| factor != 1.0);
            }
        }
        rescale
    }
}
