use std::ops::Range;

use super::block::{BLOCK_WORDS, project};
use super::chunk::{CHUNK, Chunk};
use super::{CrossEntropyInputs, CrossEntropySpec, soft_cap};
use crate::error::Result;
use crate::kernels::matmul::{Factors, Fetch, Output, Partial, Scratch, Strip};
use crate::kernels::pack::{Element, PANEL, words};
use crate::kernels::simd::{Vector, Vectorized};
use crate::kernels::split::expect_len;
use crate::kernels::{In, Kernel, Out};

/// Elements that keep rows of scratch memory out of each other's cache sets.
const ROW_PADDING: usize = 16;

/// dweight [vocab, width]: the sum over tokens of dloss (softmax - one-hot) hidden^T, in f32.
///
/// A part computes the logits of its words once more.
#[derive(Debug)]
pub struct ProjectedCrossEntropyWeightGrad<E> {
    inputs: CrossEntropyInputs<E>,
    loss_gradient: In<f32>,
    log_sum_exp: In<f32>,
    weight_gradient: Out<E>,
    spec: CrossEntropySpec,
}

impl<E: Element> ProjectedCrossEntropyWeightGrad<E> {
    /// `loss_gradient` and `log_sum_exp` f32 `[tokens]`, the latter as `ProjectedCrossEntropyGrad` writes it.
    ///
    /// # Errors
    /// If the memory does not have the lengths that the extents ask for.
    pub fn new(
        inputs: CrossEntropyInputs<E>,
        loss_gradient: In<f32>,
        log_sum_exp: In<f32>,
        weight_gradient: Out<E>,
        spec: CrossEntropySpec,
    ) -> Result<Self> {
        let CrossEntropySpec { tokens, width, vocab, .. } = spec;
        inputs.check(&spec)?;
        expect_len("the gradient of the losses", loss_gradient.len(), tokens)?;
        expect_len("the log-sum-exp", log_sum_exp.len(), tokens)?;
        expect_len("the gradient of the weight", weight_gradient.len(), vocab * width)?;
        Ok(Self { inputs, loss_gradient, log_sum_exp, weight_gradient, spec })
    }

    /// Elements between rows of hidden states: whole panels can be read at any column.
    fn stride(&self) -> usize {
        self.spec.width.next_multiple_of(PANEL) + ROW_PADDING
    }

    /// Logits [words, lanes] of a group become their gradients.
    fn logits_to_gradients(
        &self,
        chunk: &Chunk,
        group: &Range<usize>,
        vocabulary: &Range<usize>,
        logits: &mut [f32],
    ) {
        let targets = self.inputs.targets.as_slice();
        let (mut log_sum_exp, mut scale) = ([0.0; CHUNK], [0.0; CHUNK]);
        let lanes = group.len();
        let tokens = || chunk.tokens().iter().skip(group.start).take(lanes).enumerate();
        for (lane, &token) in tokens() {
            log_sum_exp[lane] = self.log_sum_exp.as_slice()[token];
            scale[lane] = self.loss_gradient.as_slice()[token];
        }
        let (log_sum_exp, scale) = (&log_sum_exp[..lanes], &scale[..lanes]);
        self.spec.isa.run(ScaledSoftmax { values: logits, log_sum_exp, scale });
        for (lane, &token) in tokens() {
            let target = targets[token] as usize;
            if vocabulary.contains(&target) {
                logits[(target - vocabulary.start) * lanes + lane] -= scale[lane];
            }
        }
    }

    /// sums [words, width] (+)= gradients [words, lanes] times hidden [tokens, width].
    fn add_outer(
        &self,
        (words, tokens): (usize, usize),
        (gradients, lanes): (&[f32], usize),
        hidden: &[f32],
        (add, sums): (bool, &mut [f32]),
    ) {
        let width = self.spec.width;
        for first in (0..width).step_by(PANEL) {
            let sums = sums[first..].as_mut_ptr();
            let strip = Strip {
                pairs: false,
                base: Factors {
                    x: gradients.as_ptr(),
                    x_stride: lanes,
                    panel: hidden[first..].as_ptr(),
                    panel_stride: self.stride(),
                    depth: tokens,
                    ..Factors::NONE
                },
                low_rank: Factors::NONE,
                partial: Partial { sums, stride: width, add, keep: true },
                output: Output::F32 { residual: std::ptr::null(), y: sums },
                y_stride: width,
                rows: words,
                columns: PANEL.min(width - first),
                fetch: Fetch::Nothing,
            };
            // SAFETY: `gradients` is [words, lanes], `hidden` has the tokens' rows, `sums` is [words, width].
            unsafe { strip.compute(self.spec.isa) };
        }
    }
}

impl<E: Element> Kernel for ProjectedCrossEntropyWeightGrad<E> {
    fn parts(&self) -> usize {
        self.spec.vocab.div_ceil(BLOCK_WORDS)
    }

    fn scratch_bytes(&self) -> usize {
        let width = self.spec.width;
        let blocks = if self.spec.soft_cap.is_some() { 2 } else { 1 };
        let per_lane = words::<E>(width) + self.stride() + blocks * BLOCK_WORDS;
        (CHUNK * per_lane + BLOCK_WORDS * width) * size_of::<f32>()
    }

    fn run(&self, part: usize, scratch: &mut [u8]) {
        let CrossEntropySpec { tokens, width, vocab, .. } = self.spec;
        let vocabulary = part * BLOCK_WORDS..vocab.min((part + 1) * BLOCK_WORDS);
        let length = vocabulary.len();
        let mut scratch = Scratch::new(scratch);
        let panels = scratch.take(CHUNK * words::<E>(width));
        let rows = scratch.take(CHUNK * self.stride());
        let logits = scratch.take(CHUNK * BLOCK_WORDS);
        // Derivatives of capped logits.
        let slopes = scratch.take(if self.spec.soft_cap.is_some() { CHUNK * BLOCK_WORDS } else { 0 });
        let sums = &mut scratch.rest()[..length * width];
        sums.fill(0.0);
        let targets = self.inputs.targets.as_slice();
        let mut supervised = (0..tokens).filter(|&token| (targets[token] as usize) < vocab);
        loop {
            let chunk = Chunk::of(&mut supervised);
            if chunk.tokens().is_empty() {
                break;
            }
            let hidden = &mut panels[..chunk.lanes() * words::<E>(width)];
            chunk.gather(&self.inputs, &self.spec, hidden);
            for (&token, row) in chunk.tokens().iter().zip(rows.chunks_exact_mut(self.stride())) {
                let values = &self.inputs.hidden.as_slice()[token * width..][..width];
                row.iter_mut().zip(values).for_each(|(to, value)| *to = value.widen());
            }
            project(&self.inputs, &self.spec, &chunk, hidden, (vocabulary.clone(), logits));
            let capped = soft_cap::cap(&self.spec, &mut logits[..chunk.lanes() * length], slopes);
            for group in chunk.groups() {
                let logits = &mut logits[group.start * length..group.end * length];
                self.logits_to_gradients(&chunk, &group, &vocabulary, logits);
                if capped {
                    soft_cap::apply(logits, &slopes[group.start * length..group.end * length]);
                }
                let tokens = group.end.min(chunk.tokens().len()) - group.start;
                let hidden = &rows[group.start * self.stride()..];
                self.add_outer((length, tokens), (logits, group.len()), hidden, (true, sums));
            }
        }
        // SAFETY: these rows belong to this part alone.
        let gradient =
            unsafe { self.weight_gradient.range(vocabulary.start * width..vocabulary.end * width) };
        gradient.iter_mut().zip(sums).for_each(|(to, sum)| *to = E::narrow(*sum));
    }
}

/// values [words, lanes] = scale * e^(value - log-sum-exp), the latter two for each lane.
struct ScaledSoftmax<'a> {
    values: &'a mut [f32],
    log_sum_exp: &'a [f32],
    scale: &'a [f32],
}

impl Vectorized for ScaledSoftmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let lanes = self.scale.len();
        for row in self.values.chunks_exact_mut(lanes) {
            for lane in (0..lanes).step_by(V::LANES) {
                // SAFETY: lanes are whole vectors.
                unsafe {
                    let at = row.as_mut_ptr().add(lane);
                    let shift = V::load(self.log_sum_exp.as_ptr().add(lane));
                    let scale = V::load(self.scale.as_ptr().add(lane));
                    V::load(at).sub(shift).exp().mul(scale).store(at);
                }
            }
        }
    }
}
