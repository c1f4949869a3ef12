use std::ops::Range;

use super::softmax::{LargestOfRows, SoftmaxRow};
use super::{CrossEntropyInputs, CrossEntropySpec};
use crate::kernels::matmul::{Factors, Scratch, Strip, TILE_ROWS};
use crate::kernels::pack::PANEL;

/// Most tokens per chunk. Their logits (11 MB for 49,152 tokens of vocabulary) should stay in the last-level cache.
pub const CHUNK: usize = 4 * TILE_ROWS;
/// Elements that keep rows of scratch memory out of each other's cache sets.
pub const ROW_PADDING: usize = 16;

/// The supervised tokens of one part, at most [`CHUNK`].
pub struct Chunk {
    tokens: [usize; CHUNK],
    len: usize,
}

/// How many tokens have a target.
pub fn count_supervised(targets: &[u32], vocab: usize) -> usize {
    targets.iter().filter(|&&target| (target as usize) < vocab).count()
}

impl Chunk {
    /// The chunk of a part; empty beyond the last. Chunks of one step have nearly equal length.
    pub fn find(targets: &[u32], vocab: usize, part: usize) -> Self {
        let count = count_supervised(targets, vocab);
        let chunks = count.div_ceil(CHUNK);
        if part >= chunks {
            return Self { tokens: [0; CHUNK], len: 0 };
        }
        let range = count * part / chunks..count * (part + 1) / chunks;
        let mut tokens = [0; CHUNK];
        let supervised = (0..targets.len()).filter(|&token| (targets[token] as usize) < vocab);
        for (slot, token) in tokens.iter_mut().zip(supervised.skip(range.start).take(range.len())) {
            *slot = token;
        }
        Self { tokens, len: range.len() }
    }

    pub fn tokens(&self) -> &[usize] {
        &self.tokens[..self.len]
    }
}

/// Logits of a chunk and what a softmax needs of them.
pub struct Logits<'a> {
    /// [chunk, stride]
    pub values: &'a mut [f32],
    pub stride: usize,
    pub largest: [f32; CHUNK],
}

/// Elements between rows of logits.
pub fn logits_stride(vocab: usize) -> usize {
    vocab.next_multiple_of(ROW_PADDING) + ROW_PADDING
}

/// Elements of scratch memory that [`Logits::compute`] takes.
pub fn logits_scratch(spec: &CrossEntropySpec) -> usize {
    CHUNK.min(spec.tokens) * (logits_stride(spec.vocab) + spec.width + ROW_PADDING)
}

impl<'a> Logits<'a> {
    /// Projects the chunk's hidden states.
    pub fn compute(
        inputs: &CrossEntropyInputs,
        spec: &CrossEntropySpec,
        chunk: &Chunk,
        scratch: &mut Scratch<'a>,
    ) -> Self {
        let rows = chunk.len;
        let stride = logits_stride(spec.vocab);
        let hidden_stride = spec.width + ROW_PADDING;
        let values = scratch.take(rows * stride);
        let hidden = scratch.take(rows * hidden_stride);
        gather(inputs, spec, chunk.tokens(), hidden);
        let mut largest = [f32::NEG_INFINITY; CHUNK];
        for panel in 0..spec.vocab.div_ceil(PANEL) {
            let columns = PANEL.min(spec.vocab - panel * PANEL);
            let strip = Strip {
                base: project(inputs, spec, hidden, panel),
                low_rank: Factors::NONE,
                residual: std::ptr::null(),
                y: values.as_mut_ptr().wrapping_add(panel * PANEL),
                y_stride: stride,
                rows,
                columns,
                accumulate: false,
            };
            // SAFETY: `hidden` has `rows` rows, the packed weight this panel, `values` these columns of `rows` rows.
            unsafe { strip.compute(spec.isa) };
            let largest = &mut largest[..rows];
            spec.isa.run(LargestOfRows { logits: &values[panel * PANEL..], stride, columns, largest });
        }
        Self { values, stride, largest }
    }

    /// Replaces a row of logits by e^(logit - largest) and returns the sum of those.
    pub fn exponentials(&mut self, spec: &CrossEntropySpec, row: usize) -> f32 {
        let values = &mut self.values[row * self.stride..][..spec.vocab];
        spec.isa.run(SoftmaxRow { values, shift: self.largest[row] })
    }
}

/// A chunk of hidden states times one panel of the vocabulary.
pub fn project(
    inputs: &CrossEntropyInputs,
    spec: &CrossEntropySpec,
    hidden: &[f32],
    panel: usize,
) -> Factors {
    let panel_at = |panel| inputs.packed.as_slice().as_ptr().wrapping_add(panel * PANEL * spec.width);

    Factors {
        x: hidden.as_ptr(),
        x_stride: spec.width + ROW_PADDING,
        x_step: 1,
        panel: panel_at(panel),
        panel_stride: PANEL,

        depth: spec.width,
        next: panel_at(panel + 1),
    }
}

/// Copies hidden states into [chunk, width + padding].
pub fn gather(inputs: &CrossEntropyInputs, spec: &CrossEntropySpec, tokens: &[usize], to: &mut [f32]) {
    let hidden = inputs.hidden.as_slice();
    for (&token, row) in tokens.iter().zip(to.chunks_exact_mut(spec.width + ROW_PADDING)) {
        row[..spec.width].copy_from_slice(&hidden[token * spec.width..][..spec.width]);
    }
}

/// The tokens that a part zeroes where they have no target: fixed by position.
pub fn positions(tokens: usize, part: usize) -> Range<usize> {
    part * CHUNK..tokens.min((part + 1) * CHUNK)
}
