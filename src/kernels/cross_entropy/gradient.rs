use std::ops::Range;

use super::block::{BLOCK_WORDS, Exponentials, Softmax, project};
use super::chunk::{CHUNK, Chunk, chunks, positions};
use super::contract::Contraction;
use super::{CrossEntropyInputs, CrossEntropySpec, soft_cap};
use crate::error::Result;
use crate::kernels::matmul::Scratch;
use crate::kernels::pack::{Element, PANEL, words};
use crate::kernels::split::expect_len;
use crate::kernels::{In, Kernel, Out};

/// What the gradient with respect to the hidden states writes.
#[derive(Debug, Clone, Copy)]
pub struct CrossEntropyGradOutputs<E> {
    /// `[tokens]`
    pub loss: Out<f32>,
    /// `[tokens]`; 0 at ignored targets.
    pub log_sum_exp: Out<f32>,
    /// [tokens, width]; 0 at ignored targets.
    pub hidden_gradient: Out<E>,
}

/// Loss, log-sum-exp of the logits, and the gradient with respect to the hidden states:
/// dloss (softmax - one-hot) weight.
///
/// The vocabulary is taken in blocks. The gradient so far is a sum of e^(logit - largest) weight with the largest logit
/// so far; where a later block has a larger one it is scaled down, so that no logit is computed twice or kept. The
/// target's word is left out and subtracted at the end, where its probability minus one is known without cancellation.
#[derive(Debug)]
pub struct ProjectedCrossEntropyGrad<E> {
    inputs: CrossEntropyInputs<E>,
    loss_gradient: In<f32>,
    outputs: CrossEntropyGradOutputs<E>,
    spec: CrossEntropySpec,
}

impl<E: Element> ProjectedCrossEntropyGrad<E> {
    /// `loss_gradient` f32 `[tokens]`.
    ///
    /// # Errors
    /// If the memory does not have the lengths that the extents ask for.
    pub fn new(
        inputs: CrossEntropyInputs<E>,
        loss_gradient: In<f32>,
        outputs: CrossEntropyGradOutputs<E>,
        spec: CrossEntropySpec,
    ) -> Result<Self> {
        let CrossEntropySpec { tokens, width, .. } = spec;
        inputs.check(&spec)?;
        expect_len("the gradient of the losses", loss_gradient.len(), tokens)?;
        expect_len("the losses", outputs.loss.len(), tokens)?;
        expect_len("the log-sum-exp", outputs.log_sum_exp.len(), tokens)?;
        expect_len("the gradient of the hidden states", outputs.hidden_gradient.len(), tokens * width)?;
        Ok(Self { inputs, loss_gradient, outputs, spec })
    }

    fn zero_ignored(&self, part: usize) {
        let CrossEntropySpec { tokens, width, vocab, .. } = self.spec;
        let targets = self.inputs.targets.as_slice();
        let CrossEntropyGradOutputs { loss, log_sum_exp, hidden_gradient } = &self.outputs;
        for token in positions::<E>(tokens, part) {
            if targets[token] as usize >= vocab {
                // SAFETY: an ignored token belongs to the part of its position.
                unsafe {
                    loss.range(token..token + 1).fill(0.0);
                    log_sum_exp.range(token..token + 1).fill(0.0);
                    hidden_gradient.range(token * width..(token + 1) * width).fill(E::narrow(0.0));
                }
            }
        }
    }

    /// Writes what belongs to a group of lanes, given the sums [width, lanes] of e^(logit - largest) weight.
    fn finish(&self, chunk: &Chunk, softmax: &Softmax, group: Range<usize>, sums: &[f32]) {
        let width = self.spec.width;
        let targets = self.inputs.targets.as_slice();
        let lanes = group.len();
        for (lane, &token) in chunk.tokens().iter().enumerate().take(group.end).skip(group.start) {
            let total = softmax.total(lane);
            let loss_gradient = self.loss_gradient.as_slice()[token];
            let slope = soft_cap::slope(&self.spec, softmax.target[lane]);
            let (scale, others) = (loss_gradient * total.scale, loss_gradient * total.others * slope);
            let target = self.weights_of(targets[token] as usize);
            // SAFETY: a supervised token belongs to one chunk.
            let gradient = unsafe {
                self.outputs.loss.range(token..token + 1).fill(total.loss);
                self.outputs.log_sum_exp.range(token..token + 1).fill(total.log_sum_exp);
                self.outputs.hidden_gradient.range(token * width..(token + 1) * width)
            };
            let sums = sums.iter().skip(lane - group.start).step_by(lanes);
            for ((to, sum), weight) in gradient.iter_mut().zip(sums).zip(target) {
                *to = E::narrow(sum * scale - others * weight);
            }
        }
    }

    /// The row of the weight that belongs to a word.
    fn weights_of(&self, word: usize) -> impl Iterator<Item = f32> {
        let pairs = words::<E>(self.spec.width);
        let start = (word / PANEL * pairs * PANEL + word % PANEL) * E::PAIR;
        let packed = &self.inputs.packed.as_slice()[start..];
        packed.chunks(PANEL * E::PAIR).flat_map(|row| row[..E::PAIR].iter().map(|weight| weight.widen()))
    }
}

impl<E: Element> Kernel for ProjectedCrossEntropyGrad<E> {
    fn parts(&self) -> usize {
        chunks::<E>(self.spec.tokens)
    }

    fn scratch_bytes(&self) -> usize {
        let blocks = if self.spec.soft_cap.is_some() { 2 } else { 1 };
        let per_lane =
            words::<E>(self.spec.width) + blocks * BLOCK_WORDS + Contraction::<E>::rows(&self.spec);
        (CHUNK * per_lane + Contraction::<E>::split_words(&self.spec)) * size_of::<f32>()
    }

    fn run(&self, part: usize, scratch: &mut [u8]) {
        self.zero_ignored(part);
        let CrossEntropySpec { width, vocab, isa, .. } = self.spec;
        let targets = self.inputs.targets.as_slice();
        let chunk = Chunk::find::<E>(targets, vocab, part);
        let lanes = chunk.lanes();
        let mut scratch = Scratch::new(scratch);
        let hidden = scratch.take(lanes * words::<E>(width));
        chunk.gather(&self.inputs, &self.spec, hidden);
        let logits = scratch.take(lanes * BLOCK_WORDS);
        // Derivatives of capped logits.
        let slopes = scratch.take(if self.spec.soft_cap.is_some() { lanes * BLOCK_WORDS } else { 0 });
        let rows = Contraction::<E>::rows(&self.spec);
        let sums = scratch.take(lanes * rows);
        let mut contraction = Contraction::new(&self.inputs, &self.spec, scratch.rest());
        let mut softmax = Softmax::new();
        for start in (0..vocab).step_by(BLOCK_WORDS) {
            let vocabulary = start..vocab.min(start + BLOCK_WORDS);
            project(&self.inputs, &self.spec, &chunk, hidden, (vocabulary.clone(), logits));
            let capped = soft_cap::cap(&self.spec, &mut logits[..lanes * vocabulary.len()], slopes);
            softmax.take_targets(&chunk, targets, (&vocabulary, logits));
            contraction.begin(&vocabulary);
            for group in chunk.groups() {
                let length = vocabulary.len();
                let logits = &mut logits[group.start * length..group.end * length];
                let sums = &mut sums[group.start * rows..group.end * rows];
                let exponentials = Exponentials { softmax: &mut softmax, group: group.clone(), logits };
                let rescale = isa.run(exponentials);
                if capped {
                    soft_cap::apply(logits, &slopes[group.start * length..group.end * length]);
                }
                contraction.add(logits, &softmax.factor[group], (start > 0, rescale), sums);
            }
        }
        for group in chunk.groups() {
            let sums = &sums[group.start * rows..group.end * rows];
            self.finish(&chunk, &softmax, group, sums);
        }
    }
}
