//! Attention of a block of queries over the tiles of keys it sees.

use std::ops::Range;

use super::load::{Head, Place, store, transpose};
use super::product::{Into, Left, product};
use super::softmax::{Running, Seen, Sight};
use super::{KEYS, QUERIES, Scratch, check, padded};
use crate::error::Result;
use crate::graph::AttentionSpec;
use crate::kernels::body::Body;
use crate::kernels::number::Element;
use crate::kernels::simd::Vector;
use crate::kernels::split::expect_len;
use crate::kernels::{In, Out};

/// (q [n, heads * head_dim], k [n, kv_heads * head_dim], v, segments `[n]`) -> out [n, heads * head_dim], log-sum-exp of
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
    fn compute<V: Vector>(&self, part: usize, scratch: &mut [u8]) {
        let AttentionSpec { batch, seq, heads, kv_heads, .. } = self.spec;
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
            group: heads / kv_heads,
            heads,
            first_head: kv_head * (heads / kv_heads),
            query_rows: sequence * seq,
            key_rows: sequence * seq,
            queries: first..(first + QUERIES).min(seq),
            position: 0,
            keys: (first + QUERIES).min(seq),
            sight: Sight {
                segments: Some(&self.segments.as_slice()[sequence * seq..(sequence + 1) * seq]),
                causal: true,
            },
        };
        block.run::<V>(scratch, &self.out, Some(&self.lse));
    }
}

/// A block of queries of the heads that share one kv head.
pub struct Block<'a, E> {
    pub spec: &'a AttentionSpec,
    pub q: &'a [E],
    pub k: &'a [E],
    pub v: &'a [E],
    pub kv_head: usize,
    /// Heads of the block, from `first_head` on.
    pub group: usize,
    pub first_head: usize,
    /// Heads in a row of q.
    pub heads: usize,
    /// Row of the sequence's first query.
    pub query_rows: usize,
    /// Row of the sequence's first key.
    pub key_rows: usize,
    pub queries: Range<usize>,
    /// Position of query 0 among the keys.
    pub position: usize,
    /// How many keys the block's last query sees at most.
    pub keys: usize,
    pub sight: Sight<'a>,
}

/// A block's scratch memory.
struct State<'a> {
    /// [padded head_dim, columns], scaled.
    q: &'a mut [f32],
    /// [padded head_dim, columns]: the values seen so far, weighted.
    weighted: &'a mut [f32],
    running: Running<'a>,
    /// [KEYS, padded head_dim]
    k: &'a mut [f32],
    /// [KEYS, padded head_dim]
    v: &'a mut [f32],
    /// [KEYS, columns]
    scores: &'a mut [f32],
}

impl<'a> State<'a> {
    fn new(scratch: &'a mut [u8], columns: usize, padded: usize) -> Self {
        let mut scratch = Scratch::new(scratch);
        Self {
            q: scratch.take(padded * columns),
            weighted: scratch.take(padded * columns),
            running: Running { maximum: scratch.take(columns), sum: scratch.take(columns) },
            k: scratch.take(KEYS * padded),
            v: scratch.take(KEYS * padded),
            scores: scratch.take(KEYS * columns),
        }
    }
}

impl<E: Element> Block<'_, E> {
    pub fn scratch_bytes(spec: &AttentionSpec) -> usize {
        let (padded, columns) = (padded(spec.head_dim), spec.heads / spec.kv_heads * QUERIES);
        size_of::<f32>() * (columns * (2 * padded + 2 + KEYS) + 2 * KEYS * padded)
    }

    fn head<'b>(&self, values: &'b [E], heads: usize, head: usize) -> Head<'b, E> {
        let head_dim = self.spec.head_dim;
        Head { values, stride: heads * head_dim, offset: head * head_dim, head_dim }
    }

    #[inline(always)]
    pub fn run<V: Vector>(&self, scratch: &mut [u8], out: &Out<E>, lse: Option<&Out<f32>>) {
        let AttentionSpec { kv_heads, head_dim, .. } = *self.spec;
        let (padded, columns) = (padded(head_dim), self.group * QUERIES);
        let mut state = State::new(scratch, columns, padded);
        self.start::<V>(&mut state);

        let queries = self.position + self.queries.start..self.position + self.queries.end;
        for first in (0..self.keys).step_by(KEYS) {
            let keys = first..(first + KEYS).min(self.keys);
            let seen = self.sight.of(&queries, &keys);
            if seen == Seen::None {
                continue;
            }
            let rows = self.key_rows + keys.start..self.key_rows + keys.end;
            self.head(self.k, kv_heads, self.kv_head).load(rows.clone(), 1.0, state.k, padded);
            self.head(self.v, kv_heads, self.kv_head).load(rows, 1.0, state.v, padded);
            let scores = &mut state.scores[..keys.len() * columns];
            let a = Left { values: state.k, row: padded, column: 1 };
            product::<V>([keys.len(), head_dim, columns], a, state.q, scores, Into::Overwrite);
            if seen == Seen::Some {
                self.sight.mask(&queries, &keys, scores);
            }
            state.running.update::<V>(scores, &mut state.weighted[..head_dim * columns]);
            let a = Left { values: state.v, row: 1, column: padded };
            product::<V>([head_dim, keys.len(), columns], a, scores, state.weighted, Into::Add);
        }
        self.finish::<V>(&mut state, out, lse);
    }

    #[inline(always)]
    fn start<V: Vector>(&self, state: &mut State<'_>) {
        let AttentionSpec { head_dim, scale, .. } = *self.spec;
        let (padded, group) = (padded(head_dim), self.group);
        let rows = self.query_rows + self.queries.start..self.query_rows + self.queries.end;
        let block = &mut state.k[..QUERIES * padded];
        for i in 0..group {
            let head = self.head(self.q, self.heads, self.first_head + i);
            head.load(rows.clone(), scale.0 as f32, block, padded);
            let target = Place { start: i * QUERIES, row: group * QUERIES };
            let source = Place { start: 0, row: padded };
            transpose::<V>([QUERIES, padded], (block, source), (state.q, target));
        }
        state.weighted.fill(0.0);
        state.running.reset();
    }

    /// Divides by the softmax's sums and writes the results.
    #[inline(always)]
    fn finish<V: Vector>(&self, state: &mut State<'_>, out: &Out<E>, lse: Option<&Out<f32>>) {
        let head_dim = self.spec.head_dim;
        let (padded, group) = (padded(head_dim), self.group);
        let block = &mut state.k[..QUERIES * padded];
        for i in 0..group {
            let source = Place { start: i * QUERIES, row: group * QUERIES };
            let target = Place { start: 0, row: padded };
            transpose::<V>([padded, QUERIES], (state.weighted, source), (block, target));
            for (query, values) in self.queries.clone().zip(block.chunks_exact(padded)) {
                let at = (self.query_rows + query) * self.heads + self.first_head + i;
                let column = i * QUERIES + query - self.queries.start;
                let (maximum, sum) = (state.running.maximum[column], state.running.sum[column]);
                // SAFETY: every part has its own rows of its own heads.
                store(values, 1.0 / sum, unsafe { out.range(at * head_dim..(at + 1) * head_dim) });
                if let Some(lse) = lse {
                    // SAFETY: as above.
                    let lse = unsafe { lse.range(at..at + 1) };
                    lse[0] = maximum + sum.ln();
                }
            }
        }
    }
}
