//! Attention of a few queries over cached keys and values, for decoding.

use super::forward::{Block, block_queries};
use super::softmax::{EVERYTHING, Sight};
use super::{check, slab_queries};
use crate::error::{Error, Result};
use crate::graph::AttentionSpec;
use crate::kernels::body::Body;
use crate::kernels::number::Element;
use crate::kernels::simd::Vector;
use crate::kernels::split::expect_len;
use crate::kernels::{In, Out};

/// (q [n, heads * head_dim], keys [capacity, kv_heads * head_dim], values, start u32 `[1]`) -> [n, heads * head_dim]:
/// query i stands at position start + i and sees cached keys 0..=start + i.
#[derive(Debug)]
pub struct CachedAttention<E> {
    spec: AttentionSpec,
    capacity: usize,
    q: In<E>,
    keys: In<E>,
    values: In<E>,
    start: In<u32>,
    out: Out<E>,
}

impl<E: Element> CachedAttention<E> {
    /// `spec.batch` is 1 and `spec.seq` the number of queries. A start that would place a query past the cache's end
    /// is moved back when the kernel runs.
    ///
    /// # Errors
    /// An internal error if the heads do not form groups, the lengths do not fit, or the cache is too small.
    pub fn new(
        spec: AttentionSpec,
        [q, keys, values]: [In<E>; 3],
        start: In<u32>,
        out: Out<E>,
    ) -> Result<Self> {
        check(&spec)?;
        let width = spec.kv_heads * spec.head_dim;
        let capacity = keys.len() / width;
        expect_len("the queries", q.len(), spec.seq * spec.heads * spec.head_dim)?;
        expect_len("the cached keys", keys.len(), capacity * width)?;
        expect_len("the cached values", values.len(), keys.len())?;
        expect_len("the first query's position", start.len(), 1)?;
        expect_len("the attention's result", out.len(), q.len())?;
        if spec.batch != 1 || capacity < spec.seq {
            return Err(Error::internal(format!("{spec:?} over a cache of {capacity} positions")));
        }
        Ok(Self { spec, capacity, q, keys, values, start, out })
    }
}

impl<E: Element> Body for CachedAttention<E> {
    /// One for each kv head of each block of queries.
    fn parts(&self) -> usize {
        self.spec.kv_heads * self.spec.seq.div_ceil(block_queries(&self.spec))
    }

    fn scratch_bytes(&self) -> usize {
        Block::<E>::scratch_bytes(&self.spec)
    }

    #[inline(always)]
    fn compute<V: Vector>(&self, part: usize, scratch: &mut [u8]) {
        let AttentionSpec { seq, heads, kv_heads, .. } = self.spec;
        let (kv_head, group) = (part % kv_heads, heads / kv_heads);
        let length = block_queries(&self.spec);
        let first = part / kv_heads * length;
        let position = (self.start.as_slice()[0] as usize).min(self.capacity - seq);
        let queries = first..(first + length).min(seq);
        let window = self.spec.window.unwrap_or(EVERYTHING);
        let block = Block {
            spec: &self.spec,
            q: self.q.as_slice(),
            k: self.keys.as_slice(),
            v: self.values.as_slice(),
            kv_head,
            group,
            heads,
            first_head: kv_head * group,
            query_rows: 0,
            key_rows: 0,
            keys: (position + queries.start + 1).saturating_sub(window)..position + queries.end,
            queries,
            position,
            sight: Sight { segments: None, causal: true, window },
        };
        let block = if seq == 1 && group <= slab_queries(1) { single_query(block) } else { block };
        block.run::<V>(scratch, &self.out, None);
    }
}

/// With one query, the heads of a group see the same keys: they stand in for the queries of a block of one head, which
/// are then rows of [heads, head_dim].
#[inline(always)]
fn single_query<E>(block: Block<'_, E>) -> Block<'_, E> {
    Block {
        query_rows: block.first_head,
        queries: 0..block.group,
        first_head: 0,
        heads: 1,
        group: 1,
        // The block's keys begin where the query's window does.
        sight: Sight { segments: None, causal: false, window: EVERYTHING },
        ..block
    }
}
