//! Output projection and cross-entropy in one, over the tokens that have a target: logits never exist as a whole.
//!
//! A part takes one chunk of the *supervised* tokens, which it finds by scanning the targets, so that tokens without
//! a target cost nothing. There are parts enough for every token; where fewer have targets the late ones return.

mod block;
mod chunk;
mod contract;
mod gradient;
mod loss;
mod soft_cap;
#[cfg(test)]
mod speed;
#[cfg(test)]
mod tests;
mod weight_gradient;

pub use gradient::{CrossEntropyGradOutputs, ProjectedCrossEntropyGrad};
pub use loss::ProjectedCrossEntropy;
pub use weight_gradient::ProjectedCrossEntropyWeightGrad;

use super::In;
use super::pack::{Element, packed_len};
use super::simd::Isa;
use super::split::expect_len;
use crate::error::Result;
use crate::graph::Scalar;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrossEntropySpec {
    pub tokens: usize,
    /// d, the length of a hidden state.
    pub width: usize,
    pub vocab: usize,
    /// Logits become cap * tanh(logit / cap).
    pub soft_cap: Option<Scalar>,
    pub isa: Isa,
}

/// What the loss and both gradients read.
#[derive(Debug, Clone, Copy)]
pub struct CrossEntropyInputs<E> {
    /// [tokens, width]
    pub hidden: In<E>,
    /// The weight [vocab, width], packed.
    pub packed: In<E>,
    /// `[tokens]`; [`crate::graph::IGNORE_TARGET`] where there is nothing to learn. Others outside the vocabulary
    /// are taken for ignored too.
    pub targets: In<u32>,
}

impl<E: Element> CrossEntropyInputs<E> {
    fn check(&self, spec: &CrossEntropySpec) -> Result<()> {
        expect_len("the hidden states of a loss", self.hidden.len(), spec.tokens * spec.width)?;
        expect_len("its packed weight", self.packed.len(), packed_len::<E>(spec.vocab, spec.width))?;
        expect_len("its targets", self.targets.len(), spec.tokens)
    }
}
