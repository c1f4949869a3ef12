use super::chunk::{CHUNK, Chunk, Logits, ROW_PADDING, logits_scratch, positions};
use super::{CrossEntropyInputs, CrossEntropySpec};
use crate::error::Result;
use crate::kernels::matmul::{Factors, Scratch, Strip};
use crate::kernels::pack::{PANEL, packed_len};
use crate::kernels::split::expect_len;
use crate::kernels::{In, Kernel, Out};

/// Words of vocabulary contracted in one pass: a chunk's gradients of them and a panel stay in the second-level cache.
const BLOCK_WORDS: usize = 1536;

/// What the gradient with respect to the hidden states writes.
#[derive(Debug, Clone, Copy)]
pub struct CrossEntropyGradOutputs {
    /// `[tokens]`
    pub loss: Out<f32>,
    /// `[tokens]`; 0 at ignored targets.
    pub log_sum_exp: Out<f32>,
    /// [tokens, width]; 0 at ignored targets.
    pub hidden_gradient: Out<f32>,
}

/// Loss, log-sum-exp of the logits, and the gradient with respect to the hidden states:
/// dloss (softmax - one-hot) weight.
#[derive(Debug)]
pub struct ProjectedCrossEntropyGrad {
    inputs: CrossEntropyInputs,
    packed_transposed: In<f32>,
    loss_gradient: In<f32>,
    outputs: CrossEntropyGradOutputs,
    spec: CrossEntropySpec,
}

impl ProjectedCrossEntropyGrad {
    /// `packed_transposed`: the weight packed for gradient x weight; `loss_gradient` f32 `[tokens]`.
    ///
    /// # Errors
    /// If the memory does not have the lengths that the extents ask for.
    pub fn new(
        inputs: CrossEntropyInputs,
        packed_transposed: In<f32>,
        loss_gradient: In<f32>,
        outputs: CrossEntropyGradOutputs,
        spec: CrossEntropySpec,
    ) -> Result<Self> {
        let CrossEntropySpec { tokens, width, vocab, .. } = spec;
        inputs.check(&spec)?;
        expect_len("the transposed packed weight", packed_transposed.len(), packed_len::<f32>(width, vocab))?;
        expect_len("the gradient of the losses", loss_gradient.len(), tokens)?;
        expect_len("the losses", outputs.loss.len(), tokens)?;
        expect_len("the log-sum-exp", outputs.log_sum_exp.len(), tokens)?;
        expect_len("the gradient of the hidden states", outputs.hidden_gradient.len(), tokens * width)?;
        Ok(Self { inputs, packed_transposed, loss_gradient, outputs, spec })
    }

    fn zero_ignored(&self, part: usize) {
        let CrossEntropySpec { tokens, width, vocab, .. } = self.spec;
        let targets = self.inputs.targets.as_slice();
        let CrossEntropyGradOutputs { loss, log_sum_exp, hidden_gradient } = &self.outputs;
        for token in positions(tokens, part) {
            if targets[token] as usize >= vocab {
                // SAFETY: an ignored token belongs to the part of its position.
                unsafe {
                    loss.range(token..token + 1).fill(0.0);
                    log_sum_exp.range(token..token + 1).fill(0.0);
                    hidden_gradient.range(token * width..(token + 1) * width).fill(0.0);
                }
            }
        }
    }

    /// Logits become sum * (softmax - one-hot), row by row; returns the sums.
    fn logits_to_gradients(&self, chunk: &Chunk, logits: &mut Logits<'_>) -> [f32; CHUNK] {
        let targets = self.inputs.targets.as_slice();
        let mut sums = [0.0; CHUNK];
        for (row, &token) in chunk.tokens().iter().enumerate() {
            let target = row * logits.stride + targets[token] as usize;
            let target_logit = logits.values[target];
            let sum = logits.exponentials(&self.spec, row);
            logits.values[target] -= sum;
            sums[row] = sum;
            // SAFETY: a supervised token belongs to one chunk.
            unsafe {
                let largest = logits.largest[row];
                self.outputs.loss.range(token..token + 1).fill(sum.ln() + (largest - target_logit));
                self.outputs.log_sum_exp.range(token..token + 1).fill(sum.ln() + largest);
            }
        }
        sums
    }

    /// gradients [rows, vocab] times weight into `product` [rows, width + padding].
    fn contract(&self, logits: &Logits<'_>, rows: usize, product: &mut [f32]) {
        let CrossEntropySpec { width, vocab, isa, .. } = self.spec;
        let weight = self.packed_transposed.as_slice().as_ptr();
        for start in (0..vocab).step_by(BLOCK_WORDS) {
            for panel in 0..width.div_ceil(PANEL) {
                let next = match (panel + 1) * PANEL {
                    first if first < width => ((panel + 1) * vocab + start) * PANEL,
                    _ => (start + BLOCK_WORDS) * PANEL,
                };
                let strip = Strip {
                    base: Factors {
                        x: logits.values.as_ptr().wrapping_add(start),
                        x_stride: logits.stride,
                        x_step: 1,
                        panel: weight.wrapping_add((panel * vocab + start) * PANEL),
                        panel_stride: PANEL,

                        depth: BLOCK_WORDS.min(vocab - start),
                        next: weight.wrapping_add(next),
                    },
                    low_rank: Factors::NONE,
                    residual: std::ptr::null(),
                    y: product.as_mut_ptr().wrapping_add(panel * PANEL),
                    y_stride: width + ROW_PADDING,
                    rows,
                    columns: PANEL.min(width - panel * PANEL),
                    accumulate: start > 0,
                };
                // SAFETY: `new` checked the packed weight; logits and product have `rows` rows in scratch memory.
                unsafe { strip.compute(isa) };
            }
        }
    }
}

impl Kernel for ProjectedCrossEntropyGrad {
    fn parts(&self) -> usize {
        self.spec.tokens.div_ceil(CHUNK)
    }

    fn scratch_bytes(&self) -> usize {
        let product = CHUNK.min(self.spec.tokens) * (self.spec.width + ROW_PADDING);
        (logits_scratch(&self.spec) + product) * size_of::<f32>()
    }

    fn run(&self, part: usize, scratch: &mut [u8]) {
        self.zero_ignored(part);
        let width = self.spec.width;
        let chunk = Chunk::find(self.inputs.targets.as_slice(), self.spec.vocab, part);
        if chunk.tokens().is_empty() {
            return;
        }
        let mut scratch = Scratch::new(scratch);
        let mut logits = Logits::compute(&self.inputs, &self.spec, &chunk, &mut scratch);
        let sums = self.logits_to_gradients(&chunk, &mut logits);
        let product = scratch.rest();
        self.contract(&logits, chunk.tokens().len(), product);
        let rows = product.chunks_exact(width + ROW_PADDING).zip(sums);
        for (&token, (row, sum)) in chunk.tokens().iter().zip(rows) {
            let scale = self.loss_gradient.as_slice()[token] / sum;
            // SAFETY: a supervised token belongs to one chunk.
            let gradient = unsafe { self.outputs.hidden_gradient.range(token * width..(token + 1) * width) };
            for (to, value) in gradient.iter_mut().zip(row) {
                *to = value * scale;
            }
        }
    }
}
