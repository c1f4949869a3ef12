//! The gradient of attention: probabilities are recomputed from the saved log-sum-exp, tile by tile.
//!
//! With P = exp(S - lse), D = rowsum(dO * O): dS = P * (dO V^T - D), dV = P^T dO, dK = dS^T Q * scale, dQ = dS K * scale.
//! Every tile is visited in the same order whichever gradients are wanted of it.

use std::ops::Range;

use super::load::{Head, store_column, transpose};
use super::product::{Into, Left, product};
use super::softmax::{Seen, Sight, gradient};
use super::{KEYS, MASKED, QUERIES, Scratch, check, padded};
use crate::error::Result;
use crate::graph::AttentionSpec;
use crate::kernels::lanes::{Body, Lanes};
use crate::kernels::number::Element;
use crate::kernels::split::expect_len;
use crate::kernels::{In, Out};

/// From so many pairs of a sequence and a kv head on, each is one part, which computes every tile once. Below, dq and
/// (dk, dv) are separate parts over blocks of queries and of keys, which compute the scores twice but are many.
const WHOLE_HEADS: usize = 8;
/// Tiles of keys in a part that computes dk and dv only.
const TILES: usize = 2;

/// What the forward pass saw and made.
#[derive(Debug, Clone, Copy)]
pub struct AttentionGradInputs<E> {
    /// [n, heads * head_dim]
    pub q: In<E>,
    /// [n, kv_heads * head_dim]
    pub k: In<E>,
    /// [n, kv_heads * head_dim]
    pub v: In<E>,
    /// [n]
    pub segments: In<u32>,
    /// [n, heads * head_dim]
    pub out: In<E>,
    /// [n, heads]
    pub lse: In<f32>,
    /// [n, heads * head_dim]
    pub dout: In<E>,
}

/// (q, k, v, segments, out, log-sum-exp, dout) -> dq, dk, dv
#[derive(Debug)]
pub struct AttentionGrad<E> {
    spec: AttentionSpec,
    inputs: AttentionGradInputs<E>,
    dq: Out<E>,
    dk: Out<E>,
    dv: Out<E>,
}

/// The tiles one part visits and the gradients it writes.
struct Sweep {
    sequence: usize,
    kv_head: usize,
    blocks: Range<usize>,
    tiles: Range<usize>,
    queries: bool,
    keys: bool,
}

/// One head of a block of queries, in scratch memory.
struct HeadState<'a> {
    /// [QUERIES, padded head_dim], scaled.
    q: &'a mut [f32],
    /// [padded head_dim, QUERIES], scaled.
    q_transposed: &'a mut [f32],
    /// [QUERIES, padded head_dim]
    dout: &'a mut [f32],
    /// [padded head_dim, QUERIES]
    dout_transposed: &'a mut [f32],
    /// [padded head_dim, QUERIES]
    dq: &'a mut [f32],
    /// [QUERIES]
    lse: &'a mut [f32],
    /// [QUERIES]: rowsum(dout * out).
    delta: &'a mut [f32],
}

impl<'a> HeadState<'a> {
    fn floats(padded: usize) -> usize {
        QUERIES * (5 * padded + 2)
    }

    fn from(chunk: &'a mut [f32], padded: usize) -> Self {
        let mut chunk = Scratch(chunk);
        let matrix = QUERIES * padded;
        Self {
            q: chunk.take(matrix),
            q_transposed: chunk.take(matrix),
            dout: chunk.take(matrix),
            dout_transposed: chunk.take(matrix),
            dq: chunk.take(matrix),
            lse: chunk.take(QUERIES),
            delta: chunk.take(QUERIES),
        }
    }
}

/// Tiles of keys in scratch memory.
struct Tiles<'a> {
    /// [KEYS, padded head_dim]
    k: &'a mut [f32],
    v: &'a mut [f32],
    /// [KEYS, QUERIES]: scores, then probabilities.
    p: &'a mut [f32],
    /// [KEYS, QUERIES]: the probabilities' gradient, then the scores'.
    ds: &'a mut [f32],
}

impl<E: Element> AttentionGrad<E> {
    /// # Errors
    /// An internal error if the heads do not form groups or the lengths do not fit.
    pub fn new(
        spec: AttentionSpec,
        inputs: AttentionGradInputs<E>,
        [dq, dk, dv]: [Out<E>; 3],
    ) -> Result<Self> {
        check(&spec)?;
        let n = spec.batch * spec.seq;
        expect_len("the queries", inputs.q.len(), n * spec.heads * spec.head_dim)?;
        expect_len("the keys", inputs.k.len(), n * spec.kv_heads * spec.head_dim)?;
        expect_len("the values", inputs.v.len(), inputs.k.len())?;
        expect_len("the segments", inputs.segments.len(), n)?;
        expect_len("the attention's result", inputs.out.len(), inputs.q.len())?;
        expect_len("the log-sum-exp", inputs.lse.len(), n * spec.heads)?;
        expect_len("the result's gradient", inputs.dout.len(), inputs.q.len())?;
        expect_len("the queries' gradient", dq.len(), inputs.q.len())?;
        expect_len("the keys' gradient", dk.len(), inputs.k.len())?;
        expect_len("the values' gradient", dv.len(), inputs.v.len())?;
        Ok(Self { spec, inputs, dq, dk, dv })
    }

    fn blocks(&self) -> usize {
        self.spec.seq.div_ceil(QUERIES)
    }

    fn tiles(&self) -> usize {
        self.spec.seq.div_ceil(KEYS)
    }

    fn whole_heads(&self) -> bool {
        self.spec.batch * self.spec.kv_heads >= WHOLE_HEADS
    }

    /// Longest parts first, so that threads finish together.
    fn sweep(&self, part: usize) -> Sweep {
        let columns = self.spec.batch * self.spec.kv_heads;
        let (sequence, kv_head) = (part % columns / self.spec.kv_heads, part % self.spec.kv_heads);
        let (blocks, tiles) = (0..self.blocks(), 0..self.tiles());
        if self.whole_heads() {
            return Sweep { sequence, kv_head, blocks, tiles, queries: true, keys: true };
        }
        let (index, key_parts) = (part / columns, self.tiles().div_ceil(TILES));
        if index < key_parts {
            let tiles = index * TILES..(index * TILES + TILES).min(tiles.end);
            // Queries before the first key do not see it.
            let blocks = tiles.start * (KEYS / QUERIES)..blocks.end;
            return Sweep { sequence, kv_head, blocks, tiles, queries: false, keys: true };
        }
        let block = blocks.end - 1 - (index - key_parts);
        Sweep { sequence, kv_head, blocks: block..block + 1, tiles, queries: true, keys: false }
    }

    fn head<'b>(&self, values: &'b [E], heads: usize, head: usize) -> Head<'b, E> {
        let head_dim = self.spec.head_dim;
        Head { values, stride: heads * head_dim, offset: head * head_dim, head_dim }
    }

    #[inline(always)]
    fn run<L: Lanes>(&self, sweep: &Sweep, scratch: &mut [u8]) {
        let AttentionSpec { seq, heads, kv_heads, head_dim, .. } = self.spec;
        let (padded, first_row) = (padded(head_dim), sweep.sequence * seq);
        let tile = KEYS * padded;
        let mut scratch = Scratch::new(scratch);
        let states = scratch.take(heads / kv_heads * HeadState::floats(padded));
        let (k, v) = (scratch.take(tile), scratch.take(tile));
        let (p, ds) = (scratch.take(KEYS * QUERIES), scratch.take(KEYS * QUERIES));
        let mut tiles = Tiles { k, v, p, ds };
        let kept = if sweep.keys { sweep.tiles.len() * tile } else { 0 };
        let (dk, dv) = (scratch.take(kept), scratch.take(kept));
        dk.fill(0.0);
        dv.fill(0.0);

        let segments = &self.inputs.segments.as_slice()[first_row..first_row + seq];
        let sight = Sight { segments: Some(segments) };
        for block in sweep.blocks.clone() {
            let queries = block * QUERIES..(block * QUERIES + QUERIES).min(seq);
            self.start(sweep, &queries, states, tiles.k);
            for index in sweep.tiles.clone() {
                let keys = index * KEYS..(index * KEYS + KEYS).min(queries.end);
                if keys.start >= queries.end {
                    break;
                }
                let seen = sight.of(&queries, &keys);
                if seen == Seen::None {
                    continue;
                }
                let rows = first_row + keys.start..first_row + keys.end;
                self.head(self.inputs.k.as_slice(), kv_heads, sweep.kv_head).load(
                    rows.clone(),
                    1.0,
                    tiles.k,
                    padded,
                );
                self.head(self.inputs.v.as_slice(), kv_heads, sweep.kv_head).load(rows, 1.0, tiles.v, padded);
                let at = if sweep.keys { (index - sweep.tiles.start) * tile } else { 0 };
                let kept = if sweep.keys { at..at + tile } else { 0..0 };
                for state in states.chunks_exact_mut(HeadState::floats(padded)) {
                    let state = HeadState::from(state, padded);
                    let mask = (seen == Seen::Some).then_some(&sight);
                    tiles.scores::<L>(&state, head_dim, mask, &queries, &keys);
                    if sweep.keys {
                        let sums = (&mut dk[kept.clone()], &mut dv[kept.clone()]);
                        tiles.key_gradients::<L>(&state, queries.len(), keys.len(), sums);
                    }
                    if sweep.queries {
                        tiles.query_gradient::<L>(state, head_dim, keys.len());
                    }
                }
            }
            if sweep.queries {
                self.write_queries(sweep, &queries, states);
            }
        }
        if sweep.keys {
            self.write_keys(sweep, dk, dv);
        }
    }

    /// Loads a block of queries of every head; `rows` is room for it.
    #[inline(always)]
    fn start(&self, sweep: &Sweep, queries: &Range<usize>, states: &mut [f32], rows: &mut [f32]) {
        let AttentionSpec { seq, heads, kv_heads, head_dim, scale, .. } = self.spec;
        let (padded, count) = (padded(head_dim), queries.len());
        let range = sweep.sequence * seq + queries.start..sweep.sequence * seq + queries.end;
        for (i, state) in states.chunks_exact_mut(HeadState::floats(padded)).enumerate() {
            let state = HeadState::from(state, padded);
            let head = sweep.kv_head * (heads / kv_heads) + i;
            self.head(self.inputs.q.as_slice(), heads, head).load(
                range.clone(),
                scale.0 as f32,
                state.q,
                padded,
            );
            self.head(self.inputs.dout.as_slice(), heads, head).load(range.clone(), 1.0, state.dout, padded);
            self.head(self.inputs.out.as_slice(), heads, head).load(range.clone(), 1.0, rows, padded);
            transpose(state.q, count, padded, head_dim, state.q_transposed);
            transpose(state.dout, count, padded, head_dim, state.dout_transposed);
            state.dq.fill(0.0);
            // Columns without a query get probability 0.
            state.lse.fill(-MASKED);
            state.delta.fill(0.0);
            let pairs = rows.chunks_exact(padded).zip(state.dout.chunks_exact(padded));
            for (query, (out, dout)) in pairs.take(count).enumerate() {
                state.lse[query] = self.inputs.lse.as_slice()[(range.start + query) * heads + head];
                state.delta[query] = dot(out, dout);
            }
        }
    }

    #[inline(always)]
    fn write_queries(&self, sweep: &Sweep, queries: &Range<usize>, states: &mut [f32]) {
        let AttentionSpec { seq, heads, kv_heads, head_dim, scale, .. } = self.spec;
        let padded = padded(head_dim);
        for (i, state) in states.chunks_exact_mut(HeadState::floats(padded)).enumerate() {
            let state = HeadState::from(state, padded);
            let head = sweep.kv_head * (heads / kv_heads) + i;
            for query in queries.clone() {
                let at = ((sweep.sequence * seq + query) * heads + head) * head_dim;
                // SAFETY: every part that computes dq has its own rows of its own heads.
                let row = unsafe { self.dq.range(at..at + head_dim) };
                store_column(state.dq, query - queries.start, scale.0 as f32, row);
            }
        }
    }

    #[inline(always)]
    fn write_keys(&self, sweep: &Sweep, dk: &[f32], dv: &[f32]) {
        let AttentionSpec { seq, kv_heads, head_dim, .. } = self.spec;
        let padded = padded(head_dim);
        let keys = sweep.tiles.start * KEYS..(sweep.tiles.end * KEYS).min(seq);
        for (key, (dk, dv)) in keys.zip(dk.chunks_exact(padded).zip(dv.chunks_exact(padded))) {
            let at = ((sweep.sequence * seq + key) * kv_heads + sweep.kv_head) * head_dim;
            // SAFETY: every part that computes dk and dv has its own rows of its own kv head.
            let rows = unsafe { [self.dk.range(at..at + head_dim), self.dv.range(at..at + head_dim)] };
            for (row, sums) in rows.into_iter().zip([dk, dv]) {
                for (to, from) in row.iter_mut().zip(sums) {
                    *to = E::narrow(*from);
                }
            }
        }
    }
}

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut stripes = [0.0; QUERIES];
    for (a, b) in a.chunks_exact(QUERIES).zip(b.chunks_exact(QUERIES)) {
        for (stripe, (a, b)) in stripes.iter_mut().zip(a.iter().zip(b)) {
            *stripe += a * b;
        }
    }
    stripes.iter().sum()
}

impl Tiles<'_> {
    /// Fills p and ds.
    #[inline(always)]
    fn scores<L: Lanes>(
        &mut self,
        state: &HeadState<'_>,
        head_dim: usize,
        mask: Option<&Sight<'_>>,
        queries: &Range<usize>,
        keys: &Range<usize>,
    ) {
        let extents = [keys.len(), head_dim, QUERIES];
        let row = padded(head_dim);
        let (p, ds) = (&mut self.p[..keys.len() * QUERIES], &mut self.ds[..keys.len() * QUERIES]);
        let a = Left { values: self.k, row, column: 1 };
        product::<L>(extents, a, state.q_transposed, p, Into::Overwrite);
        if let Some(sight) = mask {
            sight.mask(queries, keys, p);
        }
        let a = Left { values: self.v, row, column: 1 };
        product::<L>(extents, a, state.dout_transposed, ds, Into::Overwrite);
        gradient::<L>(p, ds, state.lse, state.delta);
    }

    /// dv += P^T dout, dk += dS^T q.
    #[inline(always)]
    fn key_gradients<L: Lanes>(
        &self,
        state: &HeadState<'_>,
        queries: usize,
        keys: usize,
        (dk, dv): (&mut [f32], &mut [f32]),
    ) {
        let extents = [keys, queries, state.q.len() / QUERIES];
        let a = Left { values: self.p, row: QUERIES, column: 1 };
        product::<L>(extents, a, state.dout, dv, Into::Add);
        let a = Left { values: self.ds, row: QUERIES, column: 1 };
        product::<L>(extents, a, state.q, dk, Into::Add);
    }

    /// dq += dS K, transposed.
    #[inline(always)]
    fn query_gradient<L: Lanes>(&self, state: HeadState<'_>, head_dim: usize, keys: usize) {
        let a = Left { values: self.k, row: 1, column: padded(head_dim) };
        product::<L>([head_dim, keys, QUERIES], a, self.ds, state.dq, Into::Add);
    }
}

impl<E: Element> Body for AttentionGrad<E> {
    fn parts(&self) -> usize {
        let columns = self.spec.batch * self.spec.kv_heads;
        let each = if self.whole_heads() { 1 } else { self.tiles().div_ceil(TILES) + self.blocks() };
        if self.spec.seq == 0 { 0 } else { columns * each }
    }

    fn scratch_bytes(&self) -> usize {
        let AttentionSpec { heads, kv_heads, head_dim, .. } = self.spec;
        let padded = padded(head_dim);
        let kept = if self.whole_heads() { self.tiles() } else { TILES };
        let floats = heads / kv_heads * HeadState::floats(padded)
            + 2 * KEYS * padded * (1 + kept)
            + 2 * KEYS * QUERIES;
        floats * size_of::<f32>()
    }

    #[inline(always)]
    fn compute<L: Lanes>(&self, part: usize, scratch: &mut [u8]) {
        self.run::<L>(&self.sweep(part), scratch);
    }
}
