use std::ops::Range;

use super::chunk::{CHUNK, ROW_PADDING, gather, project};
use super::{CrossEntropyInputs, CrossEntropySpec};
use crate::error::Result;
use crate::kernels::matmul::{Factors, Scratch, Strip};
use crate::kernels::pack::PANEL;
use crate::kernels::simd::{Vector, Vectorized};
use crate::kernels::split::expect_len;
use crate::kernels::{In, Kernel, Out};

/// Words of vocabulary per part: enough to outweigh gathering the hidden states once more.
const PART_WORDS: usize = 8 * PANEL;
/// Elements between rows of a chunk's logits.
const LOGITS_STRIDE: usize = PART_WORDS + ROW_PADDING;

/// dweight [vocab, width]: the sum over tokens of dloss (softmax - one-hot) hidden^T.
///
/// A part computes the logits of its words once more.
#[derive(Debug)]
pub struct ProjectedCrossEntropyWeightGrad {
    inputs: CrossEntropyInputs,
    loss_gradient: In<f32>,
    log_sum_exp: In<f32>,
    weight_gradient: Out<f32>,
    spec: CrossEntropySpec,
}

impl ProjectedCrossEntropyWeightGrad {
    /// `loss_gradient` and `log_sum_exp` f32 `[tokens]`, the latter as `ProjectedCrossEntropyGrad` writes it.
    ///
    /// # Errors
    /// If the memory does not have the lengths that the extents ask for.
    pub fn new(
        inputs: CrossEntropyInputs,
        loss_gradient: In<f32>,
        log_sum_exp: In<f32>,
        weight_gradient: Out<f32>,
        spec: CrossEntropySpec,
    ) -> Result<Self> {
        let CrossEntropySpec { tokens, width, vocab, .. } = spec;
        inputs.check(&spec)?;
        expect_len("the gradient of the losses", loss_gradient.len(), tokens)?;
        expect_len("the log-sum-exp", log_sum_exp.len(), tokens)?;
        expect_len("the gradient of the weight", weight_gradient.len(), vocab * width)?;
        Ok(Self { inputs, loss_gradient, log_sum_exp, weight_gradient, spec })
    }

    /// Gradients of the logits of `words` for a chunk of tokens: [chunk, LOGITS_STRIDE].
    fn logit_gradients(&self, tokens: &[usize], hidden: &[f32], words: &Range<usize>, gradients: &mut [f32]) {
        let CrossEntropySpec { vocab, isa, .. } = self.spec;
        for first in words.clone().step_by(PANEL) {
            let strip = Strip {
                base: project(&self.inputs, &self.spec, hidden, first / PANEL),
                low_rank: Factors::NONE,
                residual: std::ptr::null(),
                y: gradients.as_mut_ptr().wrapping_add(first - words.start),
                y_stride: LOGITS_STRIDE,
                rows: tokens.len(),
                columns: PANEL.min(vocab - first),
                accumulate: false,
            };
            // SAFETY: `hidden` and `gradients` have a row for each token; `new` checked the packed weight.
            unsafe { strip.compute(isa) };
        }
        let targets = self.inputs.targets.as_slice();
        for (&token, row) in tokens.iter().zip(gradients.chunks_exact_mut(LOGITS_STRIDE)) {
            let values = &mut row[..words.len()];
            let scale = self.loss_gradient.as_slice()[token];
            isa.run(ScaledSoftmax { values, log_sum_exp: self.log_sum_exp.as_slice()[token], scale });
            let target = targets[token] as usize;
            if words.contains(&target) {
                row[target - words.start] -= scale;
            }
        }
    }

    /// dweight of `words` (+)= gradients^T hidden.
    fn add_outer(
        &self,
        rows: usize,
        hidden: &[f32],
        gradients: &[f32],
        words: &Range<usize>,
        accumulate: bool,
    ) {
        let width = self.spec.width;
        for first in (0..width).step_by(PANEL) {
            let strip = Strip {
                base: Factors {
                    x: gradients.as_ptr(),
                    x_stride: 1,
                    x_step: LOGITS_STRIDE,
                    panel: hidden.as_ptr().wrapping_add(first),
                    panel_stride: width + ROW_PADDING,
                    depth: rows,
                    next: std::ptr::null(),
                },
                low_rank: Factors::NONE,
                residual: std::ptr::null(),
                y: self.weight_gradient.as_mut_ptr().wrapping_add(words.start * width + first),
                y_stride: width,
                rows: words.len(),
                columns: PANEL.min(width - first),
                accumulate,
            };
            // SAFETY: `gradients` and `hidden` have `rows` rows, `hidden` a panel's width beyond the last one; the
            // rows of the gradient belong to this part alone.
            unsafe { strip.compute(self.spec.isa) };
        }
    }
}

impl Kernel for ProjectedCrossEntropyWeightGrad {
    fn parts(&self) -> usize {
        self.spec.vocab.div_ceil(PART_WORDS)
    }

    fn scratch_bytes(&self) -> usize {
        let chunk = CHUNK.min(self.spec.tokens);
        (chunk * (LOGITS_STRIDE + self.spec.width + ROW_PADDING) + PANEL) * size_of::<f32>()
    }

    fn run(&self, part: usize, scratch: &mut [u8]) {
        let CrossEntropySpec { tokens, width, vocab, .. } = self.spec;
        let words = part * PART_WORDS..vocab.min((part + 1) * PART_WORDS);
        let mut scratch = Scratch::new(scratch);
        let gradients = scratch.take(CHUNK.min(tokens) * LOGITS_STRIDE);
        let hidden = scratch.rest();
        let targets = self.inputs.targets.as_slice();
        let mut supervised = (0..tokens).filter(|&token| (targets[token] as usize) < vocab);
        let mut accumulate = false;
        loop {
            let mut chunk = [0; CHUNK];
            let mut rows = 0;
            for (slot, token) in chunk.iter_mut().zip(&mut supervised) {
                *slot = token;
                rows += 1;
            }
            if rows == 0 {
                break;
            }
            gather(&self.inputs, &self.spec, &chunk[..rows], hidden);
            self.logit_gradients(&chunk[..rows], hidden, &words, gradients);
            self.add_outer(rows, hidden, gradients, &words, accumulate);
            accumulate = true;
        }
        if !accumulate {
            // SAFETY: these rows belong to this part alone.
            unsafe { self.weight_gradient.range(words.start * width..words.end * width) }.fill(0.0);
        }
    }
}

/// values = scale * e^(value - log-sum-exp)
struct ScaledSoftmax<'a> {
    values: &'a mut [f32],
    log_sum_exp: f32,
    scale: f32,
}

impl Vectorized for ScaledSoftmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let (shift, scale) = (V::splat(self.log_sum_exp), V::splat(self.scale));
        for chunk in self.values.chunks_mut(V::LANES) {
            // SAFETY: the chunk has that many elements.
            unsafe {
                let value = V::load_partial(chunk.as_ptr(), chunk.len());
                value.sub(shift).exp().mul(scale).store_partial(chunk.as_mut_ptr(), chunk.len());
            }
        }
    }
}
