//! Causal grouped-query attention in tiles (Dao 2023, arXiv:2307.08691): no [seq, seq] matrix is ever in memory.
//!
//! Scores are held transposed, [keys, queries], so that vectors run along queries: maxima, sums and rescaling need no
//! step across lanes. The heads that share a kv head stand side by side in a slab: its columns are [heads of the group,
//! queries]. Sums, softmax and statistics are f32; the factors of products are f32 too, or bf16 where activations are
//! and the machine multiplies pairs of them: then probabilities and scores' gradients are rounded to bf16.

mod cached;
mod format;
mod forward;
mod gradient;
mod load;
mod product;
mod scores;
mod softmax;
mod sweep;
#[cfg(test)]
mod tests;

pub use cached::CachedAttention;
pub use forward::Attention;
pub use gradient::{AttentionGrad, AttentionGradInputs};

use crate::error::{Error, Result};
use crate::graph::AttentionSpec;

/// Lanes of the widest vector.
const LANES: usize = 16;
/// Keys in a tile.
const KEYS: usize = 128;
/// Score of a key that the query does not see.
const MASKED: f32 = -1e30;
/// Below every score of a key that the query sees.
const LOWEST: f32 = -1e20;

/// Queries in a slab, so that its columns fill three of the widest vectors or more; divides [`KEYS`].
fn slab_queries(group: usize) -> usize {
    LANES * 3usize.div_ceil(group).next_power_of_two()
}

/// Columns of a head's rows in scratch memory: head_dim rounded up to whole vectors.
fn padded(head_dim: usize) -> usize {
    head_dim.next_multiple_of(LANES)
}

fn check(spec: &AttentionSpec) -> Result<()> {
    if spec.kv_heads == 0 || !spec.heads.is_multiple_of(spec.kv_heads) || spec.heads * spec.head_dim == 0 {
        return Err(Error::internal(format!("{spec:?} has no whole group of heads for each kv head")));
    }
    if spec.window == Some(0) {
        return Err(Error::internal(format!("{spec:?} hides every key")));
    }
    if spec.scale.0 <= 0.0 || spec.soft_cap.is_some_and(|cap| cap.0 <= 0.0) {
        return Err(Error::internal(format!("{spec:?} orders scores the wrong way round")));
    }
    Ok(())
}

/// What scores are multiplied by: the softmax's factor, or the cap where scores are capped softly.
fn softmax_scale(spec: &AttentionSpec) -> f64 {
    spec.soft_cap.unwrap_or(spec.scale).0
}

/// What raw scores are multiplied by before tanh, where they are capped softly.
fn cap_factor(spec: &AttentionSpec) -> Option<f32> {
    spec.soft_cap.map(|cap| (spec.scale.0 / cap.0) as f32)
}

/// Cuts scratch memory into slices of 32-bit words.
struct Scratch<'a>(&'a mut [f32]);

impl<'a> Scratch<'a> {
    fn new(bytes: &'a mut [u8]) -> Self {
        Self(bytemuck::cast_slice_mut(bytes))
    }

    fn take(&mut self, len: usize) -> &'a mut [f32] {
        let (head, tail) = std::mem::take(&mut self.0).split_at_mut(len);
        self.0 = tail;
        head
    }
}
