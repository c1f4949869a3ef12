//! Attention of a block of queries over the tiles of keys it sees.

use std::ops::Range;

use super::load::{Head, store_column, transpose};
use super::product::{Into, Left, product};
use super::softmax::{Running, Seen, Sight};
use super::{KEYS, QUERIES, Scratch, check, padded};
use crate::error::Result;
use crate::graph::AttentionSpec;
use crate::kernels::lanes::{Body, Lanes};
use crate::kernels::number::Element;
use crate::kernels::split::expect_len;
use crate::kernels::{In, Out};

/// (q [n, heads * head_dim], k [n, kv_heads * head_dim], v, segments [n]) -> out [n, heads * head_dim], log-sum-exp of
/// the scaled scores [n, heads]; n = batch * seq.
#[derive(Debug)]
pub struct Attention<E> {
    spec: AttentionSpec,
    q: In<E>,
    k: In<E>,
    v: In<E>,
    segments: In<u32>,
    out: Out<E>,
    lse: Out<f32>,
}

impl<E: Element> Attention<E> {
    /// # Errors
    /// An internal error if the heads do not form groups or the lengths do not fit.
    pub fn new(
        spec: AttentionSpec,
        [q, k, v]: [In<E>; 3],
        segments: In<u32>,
        out: Out<E>,
        lse: Out<f32>,
    ) -> Result<Self> {
        check(&spec)?;
        let n = spec.batch * spec.seq;
        expect_len("the queries", q.len(), n * spec.heads * spec.head_dim)?;
        expect_len("the keys", k.len(), n * spec.kv_heads * spec.head_dim)?;
        expect_len("the values", v.len(), k.len())?;
        expect_len("the segments", segments.len(), n)?;
        expect_len("the attention's result", out.len(), q.len())?;
        expect_len("the log-sum-exp", lse.len(), n * spec.heads)?;
        Ok(Self { spec, q, k, v, segments, out, lse })
    }
}

impl<E: Element> Body for Attention<E> {
    /// One for each kv head of each block of queries of each sequence.
    fn parts(&self) -> usize {
        self.spec.batch * self.spec.kv_heads * self.spec.seq.div_ceil(QUERIES)
    }

    fn scratch_bytes(&self) -> usize {
        Block::<E>::scratch_bytes(&self.spec)
    }

    #[inline(always)]
    fn compute<L: Lanes>(&self, part: usize, scratch: &mut [u8]) {
        let AttentionSpec { batch, seq, kv_heads, .. } = self.spec;
        let columns = batch * kv_heads;
        // The last queries see the most keys: they go first, so that threads finish together.
        let block = seq.div_ceil(QUERIES) - 1 - part / columns;
        let (sequence, kv_head) = (part % columns / kv_heads, part % kv_heads);
        let first = block * QUERIES;
        let block = Block {
            spec: &self.spec,
            q: self.q.as_slice(),
            k: self.k.as_slice(),
            v: self.v.as_slice(),
            kv_head,
            query_rows: sequence * seq,
            key_rows: sequence * seq,
            queries: first..(first + QUERIES).min(seq),
            position: 0,
            sight: Sight { segments: Some(&self.segments.as_slice()[sequence * seq..(sequence + 1) * seq]) },
        };
        block.run::<L>(scratch, &self.out, Some(&self.lse));
    }
}

/// A block of queries of the heads that share one kv head.
pub struct Block<'a, E> {
    pub spec: &'a AttentionSpec,
    pub q: &'a [E],
    pub k: &'a [E],
    pub v: &'a [E],
    pub kv_head: usize,
    /// Row of the sequence's first query.
    pub query_rows: usize,
    /// Row of the sequence's first key.
    pub key_rows: usize,
    pub queries: Range<usize>,
    /// Position of query 0 among the keys.
    pub position: usize,
    pub sight: Sight<'a>,
}

/// Scratch of one head of the block.
struct HeadState<'a> {
    /// [padded head_dim, QUERIES], scaled.
    q: &'a mut [f32],
    /// [padded head_dim, QUERIES]
    weighted: &'a mut [f32],
    running: Running<'a>,
}

impl<'a> HeadState<'a> {
    fn from(chunk: &'a mut [f32]) -> Self {
        let (maximum, rest) = chunk.split_at_mut(QUERIES);
        let (sum, rest) = rest.split_at_mut(QUERIES);
        let (q, weighted) = rest.split_at_mut(rest.len() / 2);
        Self { q, weighted, running: Running { maximum, sum } }
    }

    fn floats(padded: usize) -> usize {
        2 * QUERIES + 2 * padded * QUERIES
    }
}

impl<E: Element> Block<'_, E> {
    pub fn scratch_bytes(spec: &AttentionSpec) -> usize {
        let (padded, group) = (padded(spec.head_dim), spec.heads / spec.kv_heads.max(1));
        4 * (group * HeadState::floats(padded) + 2 * KEYS * padded + KEYS * QUERIES)
    }

    fn head<'b>(&self, values: &'b [E], heads: usize, head: usize) -> Head<'b, E> {
        let head_dim = self.spec.head_dim;
        Head { values, stride: heads * head_dim, offset: head * head_dim, head_dim }
    }

    #[inline(always)]
    pub fn run<L: Lanes>(&self, scratch: &mut [u8], out: &Out<E>, lse: Option<&Out<f32>>) {
        let AttentionSpec { heads, kv_heads, head_dim, .. } = *self.spec;
        let (padded, group) = (padded(head_dim), heads / kv_heads);
        let mut scratch = Scratch::new(scratch);
        let states = scratch.take(group * HeadState::floats(padded));
        let (k, v) = (scratch.take(KEYS * padded), scratch.take(KEYS * padded));
        let scores = scratch.take(KEYS * QUERIES);
        self.start(states, k);

        let queries = self.position + self.queries.start..self.position + self.queries.end;
        for first in (0..queries.end).step_by(KEYS) {
            // Keys after the block's last query are seen by none of it.
            let keys = first..(first + KEYS).min(queries.end);
            let seen = self.sight.of(&queries, &keys);
            if seen == Seen::None {
                continue;
            }
            let rows = self.key_rows + keys.start..self.key_rows + keys.end;
            self.head(self.k, kv_heads, self.kv_head).load(rows.clone(), 1.0, k, padded);
            self.head(self.v, kv_heads, self.kv_head).load(rows, 1.0, v, padded);
            let scores = &mut scores[..keys.len() * QUERIES];
            for state in states.chunks_exact_mut(HeadState::floats(padded)) {
                let mut state = HeadState::from(state);
                let a = Left { values: k, row: padded, column: 1 };
                product::<L>([keys.len(), head_dim, QUERIES], a, state.q, scores, Into::Overwrite);
                if seen == Seen::Some {
                    self.sight.mask(&queries, &keys, scores);
                }
                state.running.update::<L>(scores, &mut state.weighted[..head_dim * QUERIES]);
                let a = Left { values: v, row: 1, column: padded };
                product::<L>([head_dim, keys.len(), QUERIES], a, scores, state.weighted, Into::Add);
            }
        }
        self.finish(states, out, lse);
    }

    /// Loads the queries; `rows` is room for a block of them.
    #[inline(always)]
    fn start(&self, states: &mut [f32], rows: &mut [f32]) {
        let AttentionSpec { heads, kv_heads, head_dim, scale, .. } = *self.spec;
        let padded = padded(head_dim);
        let range = self.query_rows + self.queries.start..self.query_rows + self.queries.end;
        for (i, state) in states.chunks_exact_mut(HeadState::floats(padded)).enumerate() {
            let mut state = HeadState::from(state);
            let head = self.head(self.q, heads, self.kv_head * (heads / kv_heads) + i);
            head.load(range.clone(), scale.0 as f32, rows, padded);
            transpose(rows, range.len(), padded, head_dim, state.q);
            state.weighted.fill(0.0);
            state.running.reset();
        }
    }

    /// Divides by the softmax's sums and writes the results.
    #[inline(always)]
    fn finish(&self, states: &mut [f32], out: &Out<E>, lse: Option<&Out<f32>>) {
        let AttentionSpec { heads, kv_heads, head_dim, .. } = *self.spec;
        for (i, state) in states.chunks_exact_mut(HeadState::floats(padded(head_dim))).enumerate() {
            let state = HeadState::from(state);
            let head = self.kv_head * (heads / kv_heads) + i;
            for column in 0..self.queries.len() {
                let at = (self.query_rows + self.queries.start + column) * heads + head;
                // SAFETY: every part has its own rows of its own heads.
                let row = unsafe { out.range(at * head_dim..(at + 1) * head_dim) };
                store_column(state.weighted, column, 1.0 / state.running.sum[column], row);
                if let Some(lse) = lse {
                    // SAFETY: as above.
                    let lse = unsafe { lse.range(at..at + 1) };
                    lse[0] = state.running.maximum[column] + state.running.sum[column].ln();
                }
            }
        }
    }
}
