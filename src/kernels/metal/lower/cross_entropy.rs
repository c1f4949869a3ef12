//! Output projection and cross-entropy, in chunks of tokens or blocks of the vocabulary whose logits are in memory.

use super::{Lowering, Node, Place, extent};
use crate::error::Result;
use crate::graph::Scalar;
use crate::kernels::metal::CrossEntropyNumbers;
use crate::kernels::metal::launch;

use Place::{Input, Output};

/// Most logits that are in memory at once: 128 MB of them.
const MOST_LOGITS: usize = 32 << 20;
/// Chunks are whole tiles.
const TILE: usize = 64;

fn numbers(node: &Node<'_>, soft_cap: Option<Scalar>) -> Result<CrossEntropyNumbers> {
    let (hidden, weight) = (node.input(0)?.shape, node.input(1)?.shape);
    let vocab = extent(weight.rows())?;
    extent(hidden.elements().max(weight.elements()))?;
    Ok(CrossEntropyNumbers {
        tokens: extent(hidden.rows())?,
        width: extent(hidden.last())?,
        vocab,
        words: vocab,
        first_word: 0,
        gradient: 0,
        soft_cap: soft_cap.map_or(0.0, |cap| cap.0 as f32),
    })
}

/// How many of `all` are taken at once, where each has `each` logits.
fn share(all: u32, each: u32) -> usize {
    let most = (MOST_LOGITS / (each as usize).max(1)).max(1).next_multiple_of(TILE);
    most.min(all as usize).max(1)
}

/// What a chunk of tokens is bound to: hidden states, weight, targets, logits; and where its tokens begin.
struct Chunks {
    spec: CrossEntropyNumbers,
    logits: Place,
    /// Tokens of a chunk.
    size: usize,
    /// Bytes of a hidden state.
    state_bytes: usize,
}

impl Chunks {
    fn new(node: &Node<'_>, soft_cap: Option<Scalar>, to: &mut Lowering) -> Result<Self> {
        let spec = numbers(node, soft_cap)?;
        let size = share(spec.tokens, spec.vocab);
        let logits = to.scratch(size_of::<f32>() * size * spec.vocab as usize);
        Ok(Self { spec, logits, size, state_bytes: spec.width as usize * to.element.bytes() })
    }

    /// First token and parameters of each chunk.
    fn each(&self) -> impl Iterator<Item = (usize, CrossEntropyNumbers)> + use<> {
        let (spec, size) = (self.spec, self.size);
        let tokens = spec.tokens as usize;
        (0..tokens).step_by(size).map(move |first| {
            let tokens = size.min(tokens - first) as u32;
            (first, CrossEntropyNumbers { tokens, ..spec })
        })
    }

    fn project(&self, first: usize, spec: CrossEntropyNumbers, to: &mut Lowering) {
        let hidden = Input(0).at(first * self.state_bytes);
        let bound = [hidden, Input(1).into(), Input(2).at(4 * first), self.logits.into()];
        to.launch(launch::project_logits(spec), bound);
    }
}

/// (hidden, weight, targets) -> loss
pub fn loss(node: &Node<'_>, soft_cap: Option<Scalar>, to: &mut Lowering) -> Result<()> {
    let chunks = Chunks::new(node, soft_cap, to)?;
    let log_sum_exp = to.scratch(size_of::<f32>() * chunks.size);
    // The gradient of the losses is bound, and not read.
    let unread = to.scratch(size_of::<f32>() * chunks.size);
    for (first, spec) in chunks.each() {
        chunks.project(first, spec, to);
        let (targets, loss) = (Input(2).at(4 * first), Output(0).at(4 * first));
        let bound = [chunks.logits.into(), targets, unread.into(), loss, log_sum_exp.into()];
        to.launch(launch::cross_entropy(spec), bound);
    }
    Ok(())
}

/// (hidden, weight, targets, dloss) -> loss, log-sum-exp, dhidden
pub fn gradient(node: &Node<'_>, soft_cap: Option<Scalar>, to: &mut Lowering) -> Result<()> {
    let chunks = Chunks::new(node, soft_cap, to)?;
    let logits = chunks.logits.into();
    for (first, spec) in chunks.each() {
        let spec = CrossEntropyNumbers { gradient: 1, ..spec };
        chunks.project(first, spec, to);
        let targets = Input(2).at(4 * first);
        let [dloss, loss, log_sum_exp] = [Input(3), Output(0), Output(1)].map(|place| place.at(4 * first));
        to.launch(launch::cross_entropy(spec), [logits, targets, dloss, loss, log_sum_exp]);
        let dhidden = Output(2).at(first * chunks.state_bytes);
        let bound = [logits, Input(1).into(), targets, dhidden];
        to.launch(launch::cross_entropy_hidden_gradient(spec), bound);
    }
    Ok(())
}

/// (hidden, weight, targets, dloss, log-sum-exp) -> dweight
pub fn weight_gradient(node: &Node<'_>, soft_cap: Option<Scalar>, to: &mut Lowering) -> Result<()> {
    let all = numbers(node, soft_cap)?;
    let size = share(all.vocab, all.tokens);
    let logits = to.scratch(size_of::<f32>() * size * all.tokens as usize);
    for first in (0..all.vocab).step_by(size) {
        let words = (size as u32).min(all.vocab - first);
        let spec = CrossEntropyNumbers { words, first_word: first, ..all };
        let bound = [Input(0), Input(1), Input(2), logits].map(Into::into);
        to.launch(launch::project_logits(spec), bound);
        let bound = [logits, Input(2), Input(3), Input(4)].map(Into::into);
        to.launch(launch::cross_entropy_word_gradients(spec), bound);
        let bound = [logits, Input(0), Input(2), Output(0)].map(Into::into);
        to.launch(launch::cross_entropy_weight_gradient(spec), bound);
    }
    Ok(())
}
