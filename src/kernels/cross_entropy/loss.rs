use super::block::{BLOCK_WORDS, Exponentials, Softmax, project};
use super::chunk::{CHUNK, Chunk, chunks, positions};
use super::{CrossEntropyInputs, CrossEntropySpec, soft_cap};
use crate::error::Result;
use crate::kernels::matmul::Scratch;
use crate::kernels::pack::{Element, words};
use crate::kernels::split::expect_len;
use crate::kernels::{Kernel, Out};

/// loss f32 `[tokens]`: log-sum-exp of the logits minus the target's; 0 at ignored targets.
#[derive(Debug)]
pub struct ProjectedCrossEntropy<E> {
    inputs: CrossEntropyInputs<E>,
    loss: Out<f32>,
    spec: CrossEntropySpec,
}

impl<E: Element> ProjectedCrossEntropy<E> {
    /// # Errors
    /// If the memory does not have the lengths that the extents ask for.
    pub fn new(inputs: CrossEntropyInputs<E>, loss: Out<f32>, spec: CrossEntropySpec) -> Result<Self> {
        inputs.check(&spec)?;
        expect_len("the losses", loss.len(), spec.tokens)?;
        Ok(Self { inputs, loss, spec })
    }
}

impl<E: Element> Kernel for ProjectedCrossEntropy<E> {
    fn parts(&self) -> usize {
        chunks::<E>(self.spec.tokens)
    }

    fn scratch_bytes(&self) -> usize {
        CHUNK * (words::<E>(self.spec.width) + BLOCK_WORDS) * size_of::<f32>()
    }

    fn run(&self, part: usize, scratch: &mut [u8]) {
        let CrossEntropySpec { tokens, width, vocab, isa, .. } = self.spec;
        let targets = self.inputs.targets.as_slice();
        for token in positions::<E>(tokens, part) {
            if targets[token] as usize >= vocab {
                // SAFETY: an ignored token belongs to the part of its position.
                unsafe { self.loss.range(token..token + 1) }.fill(0.0);
            }
        }
        let chunk = Chunk::find::<E>(targets, vocab, part);
        let mut scratch = Scratch::new(scratch);
        let hidden = scratch.take(chunk.lanes() * words::<E>(width));
        chunk.gather(&self.inputs, &self.spec, hidden);
        let logits = scratch.take(chunk.lanes() * BLOCK_WORDS);
        let mut softmax = Softmax::new();
        for start in (0..vocab).step_by(BLOCK_WORDS) {
            let vocabulary = start..vocab.min(start + BLOCK_WORDS);
            let logits = &mut logits[..chunk.lanes() * vocabulary.len()];
            project(&self.inputs, &self.spec, &chunk, hidden, (vocabulary.clone(), logits));
            soft_cap::cap(&self.spec, logits, &mut []);
            softmax.take_targets(&chunk, targets, (&vocabulary, logits));
            for group in chunk.groups() {
                let logits = &mut logits[group.start * vocabulary.len()..group.end * vocabulary.len()];
                isa.run(Exponentials { softmax: &mut softmax, group, logits });
            }
        }
        for (lane, &token) in chunk.tokens().iter().enumerate() {
            // SAFETY: a supervised token belongs to one chunk.
            unsafe { self.loss.range(token..token + 1) }.fill(softmax.total(lane).loss);
        }
    }
}
