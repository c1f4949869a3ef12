use super::chunk::{CHUNK, Chunk, Logits, logits_scratch, positions};
use super::{CrossEntropyInputs, CrossEntropySpec};
use crate::error::Result;
use crate::kernels::matmul::Scratch;
use crate::kernels::split::expect_len;
use crate::kernels::{Kernel, Out};

/// loss f32 `[tokens]`: log-sum-exp of the logits minus the target's; 0 at ignored targets.
#[derive(Debug)]
pub struct ProjectedCrossEntropy {
    inputs: CrossEntropyInputs,
    loss: Out<f32>,
    spec: CrossEntropySpec,
}

impl ProjectedCrossEntropy {
    /// # Errors
    /// If the memory does not have the lengths that the extents ask for.
    pub fn new(inputs: CrossEntropyInputs, loss: Out<f32>, spec: CrossEntropySpec) -> Result<Self> {
        inputs.check(&spec)?;
        expect_len("the losses", loss.len(), spec.tokens)?;
        Ok(Self { inputs, loss, spec })
    }
}

impl Kernel for ProjectedCrossEntropy {
    fn parts(&self) -> usize {
        self.spec.tokens.div_ceil(CHUNK)
    }

    fn scratch_bytes(&self) -> usize {
        logits_scratch(&self.spec) * size_of::<f32>()
    }

    fn run(&self, part: usize, scratch: &mut [u8]) {
        let targets = self.inputs.targets.as_slice();
        for token in positions(self.spec.tokens, part) {
            if targets[token] as usize >= self.spec.vocab {
                // SAFETY: an ignored token belongs to the part of its position.
                unsafe { self.loss.range(token..token + 1) }.fill(0.0);
            }
        }
        let chunk = Chunk::find(targets, self.spec.vocab, part);
        if chunk.tokens().is_empty() {
            return;
        }
        let mut logits = Logits::compute(&self.inputs, &self.spec, &chunk, &mut Scratch::new(scratch));
        for (row, &token) in chunk.tokens().iter().enumerate() {
            let target_logit = logits.values[row * logits.stride + targets[token] as usize];
            let sum = logits.exponentials(&self.spec, row);
            // SAFETY: a supervised token belongs to one chunk.
            let loss = unsafe { self.loss.range(token..token + 1) };
            loss.fill(sum.ln() + (logits.largest[row] - target_logit));
        }
    }
}
