use std::ops::Range;

use super::{CrossEntropyInputs, CrossEntropySpec};
use crate::kernels::matmul::even;
use crate::kernels::pack::{Element, words};

/// Tokens are taken in vectors of this many lanes, the last of which may be partly empty.
const LANES: usize = 16;
/// Most tokens per chunk.
pub const CHUNK: usize = LANES * 8;
/// Most vectors that one tile multiplies.
const GROUP_VECTORS: usize = 3;
/// The number of chunks is a multiple of this where tokens suffice, so that threads finish together.
const CHUNK_MULTIPLE: usize = 2;

/// Most vectors of tokens per chunk: their hidden states and gradients stay in the second-level cache.
const fn most_vectors<E: Element>() -> usize {
    if E::PAIR == 1 { 6 } else { 8 }
}

/// How many chunks so many supervised tokens make; never fewer for more.
pub fn chunks<E: Element>(supervised: usize) -> usize {
    let vectors = supervised.div_ceil(LANES);
    vectors.div_ceil(most_vectors::<E>()).next_multiple_of(CHUNK_MULTIPLE).min(vectors)
}

/// The supervised tokens of one part, at most [`CHUNK`].
pub struct Chunk {
    tokens: [usize; CHUNK],
    len: usize,
}

impl Chunk {
    /// The chunk of a part; empty beyond the last. Chunks of one step have nearly equal length.
    pub fn find<E: Element>(targets: &[u32], vocab: usize, part: usize) -> Self {
        let supervised = || (0..targets.len()).filter(|&token| (targets[token] as usize) < vocab);
        let count = supervised().count();
        let chunks = chunks::<E>(count);
        if part >= chunks {
            return Self { tokens: [0; CHUNK], len: 0 };
        }
        let vectors = even(count.div_ceil(LANES), chunks, part);
        let range = vectors.start * LANES..count.min(vectors.end * LANES);
        Self::of(supervised().skip(range.start).take(range.len()))
    }

    /// The next tokens, at most as many as fit.
    pub fn of(tokens: impl Iterator<Item = usize>) -> Self {
        let mut chunk = Self { tokens: [0; CHUNK], len: 0 };
        for (slot, token) in chunk.tokens.iter_mut().zip(tokens) {
            *slot = token;
            chunk.len += 1;
        }
        chunk
    }

    pub fn tokens(&self) -> &[usize] {
        &self.tokens[..self.len]
    }

    /// Tokens, rounded up to whole vectors.
    pub fn lanes(&self) -> usize {
        self.len.next_multiple_of(LANES)
    }

    /// The lanes in few groups, each as wide as a tile or narrower.
    pub fn groups(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let vectors = self.len.div_ceil(LANES);
        let groups = vectors.div_ceil(GROUP_VECTORS);
        (0..groups).map(move |group| {
            let vectors = even(vectors, groups, group);
            vectors.start * LANES..vectors.end * LANES
        })
    }

    /// Lays hidden states out as panels, one for each group: [width / PAIR, lanes of the group, PAIR]. Lanes without a
    /// token are zero.
    pub fn gather<E: Element>(
        &self,
        inputs: &CrossEntropyInputs<E>,
        spec: &CrossEntropySpec,
        to: &mut [f32],
    ) {
        let width = spec.width;
        let to: &mut [E] = bytemuck::cast_slice_mut(to);
        to.fill(E::narrow(0.0));
        let group_words = words::<E>(width) * E::PAIR;
        for group in self.groups() {
            let panel = &mut to[group.start * group_words..group.end * group_words];
            let row = group.len() * E::PAIR;
            for (lane, &token) in self.tokens().iter().skip(group.start).take(group.len()).enumerate() {
                let hidden = &inputs.hidden.as_slice()[token * width..][..width];
                for (pair, panel) in hidden.chunks(E::PAIR).zip(panel.chunks_exact_mut(row)) {
                    panel[lane * E::PAIR..][..pair.len()].copy_from_slice(pair);
                }
            }
        }
    }
}

/// The tokens that a part zeroes where they have no target: fixed by position.
pub fn positions<E: Element>(tokens: usize, part: usize) -> Range<usize> {
    even(tokens, chunks::<E>(tokens), part)
}
