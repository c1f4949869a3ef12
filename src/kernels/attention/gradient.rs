//! The gradient of attention: probabilities are recomputed from the saved log-sum-exp, tile by tile.
//!
//! With P = exp(S - lse), D = rowsum(dO * O): dS = P * (dO V^T - D), dV = P^T dO, dK = dS^T Q * scale, dQ = dS K * scale.
//! Every tile is visited in the same order whichever gradients are wanted of it.

use std::ops::Range;

use super::load::{Head, Place, store, transpose};
use super::product::{Into, Left, product};
use super::softmax::{Seen, Sight, gradient};
use super::{KEYS, MASKED, QUERIES, Scratch, check, padded};
use crate::error::Result;
use crate::graph::AttentionSpec;
use crate::kernels::body::Body;
use crate::kernels::number::Element;
use crate::kernels::simd::Vector;
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
    /// `[n]`
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

/// A block of queries of a group of heads, and a tile of keys, in scratch memory.
struct State<'a> {
    columns: usize,
    padded: usize,
    /// [columns, padded head_dim], scaled.
    q: &'a mut [f32],
    /// [padded head_dim, columns], scaled.
    q_transposed: &'a mut [f32],
    /// [columns, padded head_dim]
    dout: &'a mut [f32],
    /// [padded head_dim, columns]
    dout_transposed: &'a mut [f32],
    /// [padded head_dim, columns]
    dq: &'a mut [f32],
    /// [columns]
    lse: &'a mut [f32],
    /// [columns]: rowsum(dout * out).
    delta: &'a mut [f32],
    /// [KEYS, padded head_dim]
    k: &'a mut [f32],
    /// [KEYS, padded head_dim]
    v: &'a mut [f32],
    /// [KEYS, columns]: scores, then probabilities.
    p: &'a mut [f32],
    /// [KEYS, columns]: the probabilities' gradient, then the scores'.
    ds: &'a mut [f32],
}

impl<'a> State<'a> {
    fn floats(columns: usize, padded: usize) -> usize {
        columns * (5 * padded + 2 + 2 * KEYS) + 2 * KEYS * padded
    }

    fn new(scratch: &mut Scratch<'a>, columns: usize, padded: usize) -> Self {
        let matrix = columns * padded;
        Self {
            columns,
            padded,
            q: scratch.take(matrix),
            q_transposed: scratch.take(matrix),
            dout: scratch.take(matrix),
            dout_transposed: scratch.take(matrix),
            dq: scratch.take(matrix),
            lse: scratch.take(columns),
            delta: scratch.take(columns),
            k: scratch.take(KEYS * padded),
            v: scratch.take(KEYS * padded),
            p: scratch.take(KEYS * columns),
            ds: scratch.take(KEYS * columns),
        }
    }

    /// Fills p and ds.
    #[inline(always)]
    fn scores<V: Vector>(
        &mut self,
        head_dim: usize,
        mask: Option<&Sight<'_>>,
        queries: &Range<usize>,
        keys: &Range<usize>,
    ) {
        let extents = [keys.len(), head_dim, self.columns];
        let p = &mut self.p[..keys.len() * self.columns];
        let ds = &mut self.ds[..keys.len() * self.columns];
        let a = Left { values: self.k, row: self.padded, column: 1 };
        product::<V>(extents, a, self.q_transposed, p, Into::Overwrite);
        if let Some(sight) = mask {
            sight.mask(queries, keys, p);
        }
        let a = Left { values: self.v, row: self.padded, column: 1 };
        product::<V>(extents, a, self.dout_transposed, ds, Into::Overwrite);
        gradient::<V>(p, ds, self.lse, self.delta);
    }

    /// dv += P^T dout, dk += dS^T q, over all heads of the group.
    #[inline(always)]
    fn key_gradients<V: Vector>(&self, keys: usize, dk: &mut [f32], dv: &mut [f32]) {
        let extents = [keys, self.columns, self.padded];
        let a = Left { values: self.p, row: self.columns, column: 1 };
        product::<V>(extents, a, self.dout, dv, Into::Add);
        let a = Left { values: self.ds, row: self.columns, column: 1 };
        product::<V>(extents, a, self.q, dk, Into::Add);
    }

    /// dq += dS K, transposed.
    #[inline(always)]
    fn query_gradient<V: Vector>(&mut self, head_dim: usize, keys: usize) {
        let a = Left { values: self.k, row: 1, column: self.padded };
        product::<V>([head_dim, keys, self.columns], a, self.ds, self.dq, Into::Add);
    }
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
    fn run<V: Vector>(&self, sweep: &Sweep, scratch: &mut [u8]) {
        let AttentionSpec { seq, heads, kv_heads, head_dim, .. } = self.spec;
        let (padded, first_row) = (padded(head_dim), sweep.sequence * seq);
        let tile = KEYS * padded;
        let mut scratch = Scratch::new(scratch);
        let mut state = State::new(&mut scratch, heads / kv_heads * QUERIES, padded);
        let kept = if sweep.keys { sweep.tiles.len() * tile } else { 0 };
        let (dk, dv) = (scratch.take(kept), scratch.take(kept));
        dk.fill(0.0);
        dv.fill(0.0);

        let sight = Sight {
            segments: Some(&self.inputs.segments.as_slice()[first_row..first_row + seq]),
            causal: true,
        };
        let k = self.head(self.inputs.k.as_slice(), kv_heads, sweep.kv_head);
        let v = self.head(self.inputs.v.as_slice(), kv_heads, sweep.kv_head);
        for block in sweep.blocks.clone() {
            let queries = block * QUERIES..(block * QUERIES + QUERIES).min(seq);
            self.start::<V>(sweep, &queries, &mut state);
            for index in sweep.tiles.clone().take_while(|index| index * KEYS < queries.end) {
                let keys = index * KEYS..(index * KEYS + KEYS).min(queries.end);
                let seen = sight.of(&queries, &keys);
                if seen == Seen::None {
                    continue;
                }
                let rows = first_row + keys.start..first_row + keys.end;
                k.load(rows.clone(), 1.0, state.k, padded);
                v.load(rows, 1.0, state.v, padded);
                state.scores::<V>(head_dim, (seen == Seen::Some).then_some(&sight), &queries, &keys);
                if sweep.keys {
                    let at = (index - sweep.tiles.start) * tile;
                    state.key_gradients::<V>(keys.len(), &mut dk[at..at + tile], &mut dv[at..at + tile]);
                }
                if sweep.queries {
                    state.query_gradient::<V>(head_dim, keys.len());
                }
            }
            if sweep.queries {
                self.write_queries::<V>(sweep, &queries, &mut state);
            }
        }
        if sweep.keys {
            self.write_keys(sweep, dk, dv);
        }
    }

    /// Loads a block of queries of every head.
    #[inline(always)]
    fn start<V: Vector>(&self, sweep: &Sweep, queries: &Range<usize>, state: &mut State<'_>) {
        let AttentionSpec { seq, heads, kv_heads, scale, .. } = self.spec;
        let (padded, columns, group) = (state.padded, state.columns, heads / kv_heads);
        let rows = sweep.sequence * seq + queries.start..sweep.sequence * seq + queries.end;
        // Columns without a query get probability 0.
        state.lse.fill(-MASKED);
        state.delta.fill(0.0);
        state.dq.fill(0.0);
        let out = &mut state.k[..QUERIES * padded];
        for i in 0..group {
            let (first, head) = (i * QUERIES, sweep.kv_head * group + i);
            let block = first * padded..(first + QUERIES) * padded;
            let (q, dout) = (&mut state.q[block.clone()], &mut state.dout[block]);
            let of = |values: In<E>, scale: f32, to: &mut [f32]| {
                self.head(values.as_slice(), heads, head).load(rows.clone(), scale, to, padded);
            };
            of(self.inputs.q, scale.0 as f32, q);
            of(self.inputs.dout, 1.0, dout);
            of(self.inputs.out, 1.0, out);
            let (source, target) = (Place { start: 0, row: padded }, Place { start: first, row: columns });
            transpose::<V>([QUERIES, padded], (q, source), (state.q_transposed, target));
            transpose::<V>([QUERIES, padded], (dout, source), (state.dout_transposed, target));
            let pairs = out.chunks_exact(padded).zip(dout.chunks_exact(padded));
            for ((query, row), (out, dout)) in rows.clone().enumerate().zip(pairs) {
                state.lse[first + query] = self.inputs.lse.as_slice()[row * heads + head];
                state.delta[first + query] = dot(out, dout);
            }
        }
    }

    #[inline(always)]
    fn write_queries<V: Vector>(&self, sweep: &Sweep, queries: &Range<usize>, state: &mut State<'_>) {
        let AttentionSpec { seq, heads, kv_heads, head_dim, scale, .. } = self.spec;
        let (padded, group) = (state.padded, heads / kv_heads);
        let block = &mut state.k[..QUERIES * padded];
        for i in 0..group {
            let source = Place { start: i * QUERIES, row: state.columns };
            let target = Place { start: 0, row: padded };
            transpose::<V>([padded, QUERIES], (state.dq, source), (block, target));
            for (query, values) in queries.clone().zip(block.chunks_exact(padded)) {
                let at = ((sweep.sequence * seq + query) * heads + sweep.kv_head * group + i) * head_dim;
                // SAFETY: every part that computes dq has its own rows of its own heads.
                store(values, scale.0 as f32, unsafe { self.dq.range(at..at + head_dim) });
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
                store(sums, 1.0, row);
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
        let floats = State::floats(heads / kv_heads * QUERIES, padded) + 2 * kept * KEYS * padded;
        floats * size_of::<f32>()
    }

    #[inline(always)]
    fn compute<V: Vector>(&self, part: usize, scratch: &mut [u8]) {
        self.run::<V>(&self.sweep(part), scratch);
    }
}
