//! Causal grouped-query attention in tiles (Dao 2023, arXiv:2307.08691): no [seq, seq] matrix is ever in memory.
//!
//! Scores are held transposed, [keys, queries], so that vectors run along queries: maxima, sums and rescaling need no
//! step across lanes, and keys and values are read as they lie. The heads that share a kv head stand side by side: a
//! matrix's columns are [heads of the group, QUERIES]. All arithmetic is f32.

mod cached;
mod forward;
mod gradient;
mod load;
mod product;
mod softmax;
#[cfg(test)]
mod tests;

pub use cached::CachedAttention;
pub use forward::Attention;
pub use gradient::{AttentionGrad, AttentionGradInputs};

use crate::error::{Error, Result};
use crate::graph::AttentionSpec;

/// Queries in a block: two vectors of the widest instruction set.
const QUERIES: usize = 32;
/// Keys in a tile.
const KEYS: usize = 128;
/// Score of a key that the query does not see.
const MASKED: f32 = -1e30;

/// Columns of a head's rows in scratch memory: head_dim rounded up to what register tiles need.
fn padded(head_dim: usize) -> usize {
    head_dim.next_multiple_of(QUERIES)
}

fn check(spec: &AttentionSpec) -> Result<()> {
    if spec.kv_heads == 0 || !spec.heads.is_multiple_of(spec.kv_heads) || spec.head_dim == 0 {
        return Err(Error::internal(format!("{spec:?} has no whole group of heads for each kv head")));
    }
    Ok(())
}

/// Cuts scratch memory into slices of f32.
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
