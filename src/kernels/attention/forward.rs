//! Attention of a block of queries over the tiles of keys it sees.

use std::ops::Range;

use super::format::{Format, Pairs, Single, in_pairs};
use super::load::{Head, Place, store, transpose};
use super::product::{Into, Left, product};
use super::softmax::{EVERYTHING, Running, Seen, Sight, cap, mask};
use super::{KEYS, Scratch, cap_factor, check, padded, slab_queries, softmax_scale};
use crate::error::Result;
use crate::graph::AttentionSpec;
use crate::kernels::body::Body;
use crate::kernels::number::Element;
use crate::kernels::simd::Vector;
use crate::kernels::split::expect_len;
use crate::kernels::{In, Out};

/// Slabs of queries in a block: each tile of keys is brought to scratch memory once for all of them.
const SLABS: usize = 4;

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
        self.spec.batch * self.spec.kv_heads * self.spec.seq.div_ceil(block_queries(&self.spec))
    }

    fn scratch_bytes(&self) -> usize {
        Block::<E>::scratch_bytes(&self.spec)
    }

    #[inline(always)]
    fn compute<V: Vector>(&self, part: usize, scratch: &mut [u8]) {
        let AttentionSpec { batch, seq, heads, kv_heads, .. } = self.spec;
        let (columns, length) = (batch * kv_heads, block_queries(&self.spec));
        let window = self.spec.window.unwrap_or(EVERYTHING);
        // The last queries see the most keys: they go first, so that threads finish together.
        let first = (seq.div_ceil(length) - 1 - part / columns) * length;
        let (sequence, kv_head) = (part % columns / kv_heads, part % kv_heads);
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
            queries: first..(first + length).min(seq),
            position: 0,
            keys: (first + 1).saturating_sub(window)..(first + length).min(seq),
            sight: Sight {
                segments: Some(&self.segments.as_slice()[sequence * seq..(sequence + 1) * seq]),
                causal: true,
                window,
            },
        };
        block.run::<V>(scratch, &self.out, Some(&self.lse));
    }
}

/// Queries in a block.
pub fn block_queries(spec: &AttentionSpec) -> usize {
    SLABS * slab_queries(spec.heads / spec.kv_heads)
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
    /// The keys that any of the block's queries sees at most.
    pub keys: Range<usize>,
    pub sight: Sight<'a>,
}

/// A tile of keys and what a slab makes of it, in scratch memory.
struct Tile<'a> {
    /// [KEYS, words of head_dim]
    k: &'a mut [f32],
    /// [words of KEYS, padded head_dim]
    v: &'a mut [f32],
    /// [KEYS, columns]
    scores: &'a mut [f32],
    /// [KEYS, queries of a slab]
    limits: &'a mut [f32],
    /// One head of a slab: [queries of a slab, padded head_dim].
    staging: &'a mut [f32],
}

/// Some queries of each head of the block, in scratch memory.
struct Slab<'a> {
    /// [words of head_dim, columns]
    q: &'a mut [f32],
    /// [padded head_dim, columns]: the values seen so far, weighted.
    weighted: &'a mut [f32],
    running: Running<'a>,
}

impl<'a> Tile<'a> {
    fn floats(padded: usize, queries: usize, columns: usize) -> usize {
        KEYS * (2 * padded + columns + queries) + queries * padded
    }

    fn new(scratch: &mut Scratch<'a>, padded: usize, queries: usize, columns: usize) -> Self {
        Self {
            k: scratch.take(KEYS * padded),
            v: scratch.take(KEYS * padded),
            scores: scratch.take(KEYS * columns),
            limits: scratch.take(KEYS * queries),
            staging: scratch.take(queries * padded),
        }
    }
}

impl<'a> Slab<'a> {
    fn floats(padded: usize, columns: usize) -> usize {
        columns * (2 * padded + 2)
    }

    fn new(floats: &'a mut [f32], padded: usize, columns: usize) -> Self {
        let (q, floats) = floats.split_at_mut(padded * columns);
        let (weighted, floats) = floats.split_at_mut(padded * columns);
        let (maximum, sum) = floats.split_at_mut(columns);
        Self { q, weighted, running: Running { maximum, sum } }
    }
}

impl<E: Element> Block<'_, E> {
    pub fn scratch_bytes(spec: &AttentionSpec) -> usize {
        let group = spec.heads / spec.kv_heads;
        let (padded, queries) = (padded(spec.head_dim), slab_queries(group));
        // A group's heads in the place of queries may fill more than a group's columns.
        let columns = group * queries;
        let floats = Tile::floats(padded, queries, columns) + SLABS * Slab::floats(padded, columns);
        size_of::<f32>() * floats.max(Self::single_query_floats(spec))
    }

    fn single_query_floats(spec: &AttentionSpec) -> usize {
        let (padded, queries) = (padded(spec.head_dim), slab_queries(1));
        Tile::floats(padded, queries, queries) + SLABS * Slab::floats(padded, queries)
    }

    fn head<'b>(&self, values: &'b [E], heads: usize, head: usize) -> Head<'b, E> {
        let head_dim = self.spec.head_dim;
        Head { values, stride: heads * head_dim, offset: head * head_dim, head_dim }
    }

    #[inline(always)]
    pub fn run<V: Vector>(&self, scratch: &mut [u8], out: &Out<E>, lse: Option<&Out<f32>>) {
        if in_pairs::<E, V>() {
            self.run_in::<V, Pairs>(scratch, out, lse);
        } else {
            self.run_in::<V, Single>(scratch, out, lse);
        }
    }

    #[inline(always)]
    fn run_in<V: Vector, F: Format>(&self, scratch: &mut [u8], out: &Out<E>, lse: Option<&Out<f32>>) {
        let (padded, width) = (padded(self.spec.head_dim), slab_queries(self.group));
        let columns = self.group * width;
        let mut scratch = Scratch::new(scratch);
        let mut tile = Tile::new(&mut scratch, padded, width, columns);
        let floats = Slab::floats(padded, columns);
        let slabs = scratch.take(self.queries.len().div_ceil(width) * floats);
        let queries = |slab: usize| {
            let first = self.queries.start + slab * width;
            first..(first + width).min(self.queries.end)
        };
        for head in self.first_head..self.first_head + self.group {
            let rows = self.query_rows + self.queries.start..self.query_rows + self.queries.end;
            self.head(self.q, self.heads, head).prefetch(rows);
        }
        for (slab, floats) in slabs.chunks_exact_mut(floats).enumerate() {
            self.start::<V, F>(&queries(slab), &mut tile, &mut Slab::new(floats, padded, columns));
        }
        for first in self.keys.clone().step_by(KEYS) {
            let keys = first..(first + KEYS).min(self.keys.end);
            if self.sight.of(&self.positions(&self.queries), &keys) == Seen::None {
                continue;
            }
            let rows = self.key_rows + keys.start..self.key_rows + keys.end;
            let kv_heads = self.spec.kv_heads;
            let (k, v) =
                (self.head(self.k, kv_heads, self.kv_head), self.head(self.v, kv_heads, self.kv_head));
            k.load_along::<F>(rows.clone(), tile.k);
            v.load_across::<F>(rows.clone(), tile.v);
            let next = rows.end..self.key_rows + self.keys.end.min(keys.end + KEYS);
            k.prefetch(next.clone());
            v.prefetch(next);
            for (slab, floats) in slabs.chunks_exact_mut(floats).enumerate() {
                let mut state = Slab::new(floats, padded, columns);
                self.step::<V, F>(&queries(slab), &keys, &mut tile, &mut state);
            }
        }
        for (slab, floats) in slabs.chunks_exact_mut(floats).enumerate() {
            let mut state = Slab::new(floats, padded, columns);
            self.finish::<V>(&queries(slab), &mut tile, &mut state, out, lse);
        }
    }

    /// Positions of queries among the keys.
    fn positions(&self, queries: &Range<usize>) -> Range<usize> {
        self.position + queries.start..self.position + queries.end
    }

    #[inline(always)]
    fn start<V: Vector, F: Format>(&self, queries: &Range<usize>, tile: &mut Tile<'_>, slab: &mut Slab<'_>) {
        let (words, width) = (F::words(self.spec.head_dim), slab_queries(self.group));
        let rows = self.query_rows + queries.start..self.query_rows + queries.end;
        let staging = &mut tile.staging[..width * words];
        for i in 0..self.group {
            self.head(self.q, self.heads, self.first_head + i).load_along::<F>(rows.clone(), staging);
            let target = Place { start: i * width, row: self.group * width };
            transpose::<V>([width, words], (staging, Place { start: 0, row: words }), (slab.q, target));
        }
        slab.weighted.fill(0.0);
        slab.running.reset();
    }

    /// Takes in what the queries see of a tile of keys.
    #[inline(always)]
    fn step<V: Vector, F: Format>(
        &self,
        queries: &Range<usize>,
        keys: &Range<usize>,
        tile: &mut Tile<'_>,
        slab: &mut Slab<'_>,
    ) {
        let head_dim = self.spec.head_dim;
        let (padded, words, width) = (padded(head_dim), F::words(head_dim), slab_queries(self.group));
        let (columns, queries) = (self.group * width, self.positions(queries));
        let end = if self.sight.causal { keys.end.min(queries.end) } else { keys.end };
        let keys = keys.start..end;
        let seen = if keys.is_empty() { Seen::None } else { self.sight.of(&queries, &keys) };
        if seen == Seen::None {
            return;
        }
        let rows = keys.len().next_multiple_of(2);
        let scores = &mut tile.scores[..rows * columns];
        let k = Left { values: tile.k, row: words, column: 1 };
        product::<V, F>([rows, head_dim.div_ceil(F::NUMBERS), columns], k, slab.q, scores, Into::Overwrite);
        if let Some(factor) = cap_factor(self.spec) {
            cap::<V>(scores, factor);
        }
        if seen == Seen::Some {
            let limits = &mut tile.limits[..rows * width];
            self.sight.limits(&queries, &keys, width, limits);
            mask::<V>(scores, columns, limits, width);
        }
        let factor = softmax_scale(self.spec) * std::f64::consts::LOG2_E;
        slab.running.update::<V, F>(factor as f32, scores, &mut slab.weighted[..head_dim * columns]);
        let v = Left { values: tile.v, row: 1, column: padded };
        let extents = [head_dim, rows / F::NUMBERS, columns];
        product::<V, F>(extents, v, scores, slab.weighted, Into::Add);
    }

    /// Divides by the softmax's sums and writes the results.
    #[inline(always)]
    fn finish<V: Vector>(
        &self,
        queries: &Range<usize>,
        tile: &mut Tile<'_>,
        slab: &mut Slab<'_>,
        out: &Out<E>,
        lse: Option<&Out<f32>>,
    ) {
        let (head_dim, scale) = (self.spec.head_dim, softmax_scale(self.spec) as f32);
        let (padded, width) = (padded(head_dim), slab_queries(self.group));
        for i in 0..self.group {
            let source = Place { start: i * width, row: self.group * width };
            let target = Place { start: 0, row: padded };
            transpose::<V>([padded, width], (slab.weighted, source), (tile.staging, target));
            for (query, values) in queries.clone().zip(tile.staging.chunks_exact(padded)) {
                let at = (self.query_rows + query) * self.heads + self.first_head + i;
                let column = i * width + query - queries.start;
                let (maximum, sum) = (slab.running.maximum[column], slab.running.sum[column]);
                // SAFETY: every part has its own rows of its own heads.
                store(values, 1.0 / sum, unsafe { out.range(at * head_dim..(at + 1) * head_dim) });
                if let Some(lse) = lse {
                    // SAFETY: as above.
                    let lse = unsafe { lse.range(at..at + 1) };
                    lse[0] = maximum * scale + sum.ln();
                }
            }
        }
    }
}
