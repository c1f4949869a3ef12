//! The gradient of attention: probabilities are recomputed from the saved log-sum-exp, tile by tile.
//!
//! With P = exp(S - lse), D = rowsum(dO * O): dS = P * (dO V^T - D), dV = P^T dO, dK = dS^T Q * scale, dQ = dS K * scale.

use std::ops::Range;

use super::format::Format;
use super::gradient::AttentionGradInputs;
use super::load::{Head, Place, store, transpose};
use super::product::{Into, Left, product};
use super::scores::{Factors, Scores};
use super::softmax::{EVERYTHING, Seen, Sight};
use super::{KEYS, MASKED, Scratch, cap_factor, padded, slab_queries, softmax_scale};
use crate::graph::AttentionSpec;
use crate::kernels::Out;
use crate::kernels::number::Element;
use crate::kernels::simd::Vector;

/// Positions of a sequence whose gradients one part computes, for one kv head: dq of the queries there, dk and dv of
/// the keys there. Multiples of [`KEYS`], but for the sequence's end.
pub struct Band {
    pub sequence: usize,
    pub kv_head: usize,
    pub own: Range<usize>,
}

/// Visits the tiles of one band: slabs of queries in order, for each its tiles of keys in order.
pub struct Sweep<'a, E> {
    pub spec: &'a AttentionSpec,
    pub inputs: &'a AttentionGradInputs<E>,
    pub band: Band,
}

/// The keys of a sequence, in scratch memory.
struct Keys<'a> {
    /// [seq, words of head_dim]
    k: &'a mut [f32],
    /// [seq, words of head_dim]
    v: &'a mut [f32],
    /// [words of seq, padded head_dim]; empty where that is what `k` is.
    k_across: &'a mut [f32],
    /// [own keys, padded head_dim]
    dk: &'a mut [f32],
    /// [own keys, padded head_dim]
    dv: &'a mut [f32],
}

/// Some queries of each head of a group, in scratch memory.
struct Slab<'a> {
    /// [words of head_dim, columns]
    q: &'a mut [f32],
    /// [words of columns, padded head_dim]
    q_across: &'a mut [f32],
    /// [words of head_dim, columns]
    dout: &'a mut [f32],
    /// [words of columns, padded head_dim]
    dout_across: &'a mut [f32],
    /// [padded head_dim, columns]
    dq: &'a mut [f32],
    /// `[columns]`: minus the log-sum-exp, in units of log 2.
    offset: &'a mut [f32],
    /// `[columns]`: rowsum(dout * out).
    delta: &'a mut [f32],
    /// Products of a tile.
    factors: Factors<'a>,
    /// [KEYS, queries of a slab]
    limits: &'a mut [f32],
    /// One head: [queries of a slab, padded head_dim].
    staging: &'a mut [f32],
}

impl<'a> Keys<'a> {
    fn floats(seq: usize, padded: usize) -> usize {
        5 * seq.next_multiple_of(KEYS) * padded
    }

    fn new(scratch: &mut Scratch<'a>, seq: usize, padded: usize) -> Self {
        let matrix = seq.next_multiple_of(KEYS) * padded;
        Self {
            k: scratch.take(matrix),
            v: scratch.take(matrix),
            k_across: scratch.take(matrix),
            dk: scratch.take(matrix),
            dv: scratch.take(matrix),
        }
    }
}

impl<'a> Slab<'a> {
    fn floats(padded: usize, columns: usize, width: usize) -> usize {
        columns * (5 * padded + 2 + 3 * KEYS) + width * (KEYS + padded)
    }

    fn new(scratch: &mut Scratch<'a>, padded: usize, columns: usize, width: usize) -> Self {
        let matrix = padded * columns;
        Self {
            q: scratch.take(matrix),
            q_across: scratch.take(matrix),
            dout: scratch.take(matrix),
            dout_across: scratch.take(matrix),
            dq: scratch.take(matrix),
            offset: scratch.take(columns),
            delta: scratch.take(columns),
            factors: Factors {
                p: scratch.take(KEYS * columns),
                ds: scratch.take(KEYS * columns),
                ds_across: scratch.take(KEYS * columns),
            },
            limits: scratch.take(KEYS * width),
            staging: scratch.take(width * padded),
        }
    }
}

impl<E: Element> Sweep<'_, E> {
    /// Scratch memory for any band, in f32.
    pub fn floats(spec: &AttentionSpec) -> usize {
        let (padded, width) = (padded(spec.head_dim), slab_queries(spec.heads / spec.kv_heads));
        Keys::floats(spec.seq, padded) + Slab::floats(padded, spec.heads / spec.kv_heads * width, width)
    }

    #[inline(always)]
    pub fn run<V: Vector, F: Format>(&self, scratch: &mut [u8], [dq, dk, dv]: [&Out<E>; 3]) {
        let AttentionSpec { seq, heads, kv_heads, head_dim, .. } = *self.spec;
        let (padded, width, own) = (padded(head_dim), slab_queries(heads / kv_heads), &self.band.own);
        let first_row = self.band.sequence * seq;
        let mut scratch = Scratch::new(scratch);
        let mut keys = Keys::new(&mut scratch, seq, padded);
        let mut slab = Slab::new(&mut scratch, padded, heads / kv_heads * width, width);
        self.load_keys::<F>(&mut keys);
        let segments = &self.inputs.segments.as_slice()[first_row..first_row + seq];
        let window = self.spec.window.unwrap_or(EVERYTHING);
        let sight = Sight { segments: Some(segments), causal: true, window };
        // Queries from here on see none of the band's keys.
        let last = own.end.saturating_add(window - 1).min(seq);

        for first in (own.start..last).step_by(width) {
            let queries = first..(first + width).min(seq);
            let owned = first < own.end;
            self.start::<V, F>(&queries, &mut slab);
            self.prefetch(queries.end..(queries.end + width).min(seq));
            // A query sees earlier keys; keys before the band only matter to its own queries.
            let seen = (first + 1).saturating_sub(window) / KEYS * KEYS;
            let tiles = if owned { seen..queries.end } else { own.start.max(seen)..own.end };
            for first in tiles.clone().step_by(KEYS) {
                let tile = first..(first + KEYS).min(tiles.end);
                self.visit::<V, F>(&sight, [&queries, &tile], owned, &mut slab, &mut keys);
            }
            if owned {
                self.write_queries::<V>(&queries, &mut slab, dq);
            }
        }
        let count = own.len() * padded;
        self.write_keys(&keys.dk[..count], self.spec.scale.0 as f32, dk);
        self.write_keys(&keys.dv[..count], 1.0, dv);
    }

    fn head<'b>(&self, values: &'b [E], heads: usize, head: usize) -> Head<'b, E> {
        let head_dim = self.spec.head_dim;
        Head { values, stride: heads * head_dim, offset: head * head_dim, head_dim }
    }

    /// Brings all keys that the band's queries see.
    #[inline(always)]
    fn load_keys<F: Format>(&self, keys: &mut Keys<'_>) {
        let AttentionSpec { seq, kv_heads, head_dim, .. } = *self.spec;
        let (words, end) = (F::words(head_dim), self.band.own.end);
        let (first_row, rows) = (self.band.sequence * seq, end.next_multiple_of(KEYS));
        let source = first_row..first_row + end;
        let k = self.head(self.inputs.k.as_slice(), kv_heads, self.band.kv_head);
        let v = self.head(self.inputs.v.as_slice(), kv_heads, self.band.kv_head);
        k.load_along::<F>(source.clone(), &mut keys.k[..rows * words]);
        v.load_along::<F>(source.clone(), &mut keys.v[..rows * words]);
        if F::PAIRS {
            k.load_across::<F>(source, &mut keys.k_across[..rows / F::NUMBERS * padded(head_dim)]);
        }
        let own = self.band.own.len().next_multiple_of(KEYS) * padded(head_dim);
        keys.dk[..own].fill(0.0);
        keys.dv[..own].fill(0.0);
    }

    /// Brings a slab of queries of every head.
    #[inline(always)]
    fn start<V: Vector, F: Format>(&self, queries: &Range<usize>, slab: &mut Slab<'_>) {
        let AttentionSpec { seq, heads, kv_heads, head_dim, .. } = *self.spec;
        let (group, width, words) = (heads / kv_heads, slab_queries(heads / kv_heads), F::words(head_dim));
        let rows = self.band.sequence * seq + queries.start..self.band.sequence * seq + queries.end;
        let across = width / F::NUMBERS * padded(head_dim);
        // Columns without a query get probability 0.
        slab.offset.fill(MASKED);
        slab.delta.fill(0.0);
        slab.dq.fill(0.0);
        for i in 0..group {
            let head = |values| self.head(values, heads, self.band.kv_head * group + i);
            let (out, dout) = (head(self.inputs.out.as_slice()), head(self.inputs.dout.as_slice()));
            let targets = [(&mut *slab.q, &mut *slab.q_across), (&mut *slab.dout, &mut *slab.dout_across)];
            for (source, (along, to_across)) in [head(self.inputs.q.as_slice()), dout].iter().zip(targets) {
                source.load_across::<F>(rows.clone(), &mut to_across[i * across..(i + 1) * across]);
                let staging = &mut slab.staging[..width * words];
                source.load_along::<F>(rows.clone(), staging);
                let (from, to) =
                    (Place { start: 0, row: words }, Place { start: i * width, row: group * width });
                transpose::<V>([width, words], (staging, from), (along, to));
            }
            for (column, row) in (i * width..).zip(rows.clone()) {
                let lse = self.inputs.lse.as_slice()[row * heads + self.band.kv_head * group + i];
                slab.offset[column] = -lse * std::f32::consts::LOG2_E;
                slab.delta[column] = dot(out.row(row), dout.row(row));
            }
        }
    }

    /// Asks for the next slab of queries.
    #[inline(always)]
    fn prefetch(&self, queries: Range<usize>) {
        let AttentionSpec { seq, heads, kv_heads, .. } = *self.spec;
        let first_row = self.band.sequence * seq;
        let rows = first_row + queries.start..first_row + queries.end;
        for head in self.band.kv_head * heads / kv_heads..(self.band.kv_head + 1) * heads / kv_heads {
            for values in [&self.inputs.q, &self.inputs.out, &self.inputs.dout] {
                self.head(values.as_slice(), heads, head).prefetch(rows.clone());
            }
        }
    }

    /// Adds what a slab of queries and a tile of keys give to the gradients of the band's own.
    #[inline(always)]
    fn visit<V: Vector, F: Format>(
        &self,
        sight: &Sight<'_>,
        [queries, tile]: [&Range<usize>; 2],
        owned: bool,
        slab: &mut Slab<'_>,
        keys: &mut Keys<'_>,
    ) {
        let AttentionSpec { heads, kv_heads, head_dim, .. } = *self.spec;
        let (padded, words, width) = (padded(head_dim), F::words(head_dim), slab_queries(heads / kv_heads));
        let (columns, rows) = (heads / kv_heads * width, tile.len().next_multiple_of(2));
        let seen = sight.of(queries, tile);
        if seen == Seen::None {
            return;
        }
        if seen == Seen::Some {
            sight.limits(queries, tile, width, &mut slab.limits[..rows * width]);
        }
        let scores = Scores {
            k: Left { values: &keys.k[tile.start * words..], row: words, column: 1 },
            v: Left { values: &keys.v[tile.start * words..], row: words, column: 1 },
            q: slab.q,
            dout: slab.dout,
            factor: (softmax_scale(self.spec) * std::f64::consts::LOG2_E) as f32,
            cap_factor: cap_factor(self.spec),
            offset: slab.offset,
            delta: slab.delta,
            limits: (seen == Seen::Some).then_some(&*slab.limits),
            width,
            extents: [rows, head_dim.div_ceil(F::NUMBERS), columns],
        };
        scores.run::<V, F>(&mut slab.factors);
        let Factors { p, ds, ds_across } = &slab.factors;
        if self.band.own.contains(&tile.start) {
            // dv += P^T dout, dk += dS^T q, over all heads of the group.
            let (extents, row) = ([rows, columns / F::NUMBERS, padded], columns / F::NUMBERS);
            let at = (tile.start - self.band.own.start) * padded;
            let p = Left { values: p, row, column: 1 };
            product::<V, F>(extents, p, slab.dout_across, &mut keys.dv[at..], Into::Add);
            let ds = Left { values: ds, row, column: 1 };
            product::<V, F>(extents, ds, slab.q_across, &mut keys.dk[at..], Into::Add);
        }
        if owned {
            // dq += dS K, transposed.
            let (k, ds) = if F::PAIRS { (&keys.k_across, ds_across) } else { (&keys.k, ds) };
            let k = Left { values: &k[tile.start / F::NUMBERS * padded..], row: 1, column: padded };
            product::<V, F>([head_dim, rows / F::NUMBERS, columns], k, ds, slab.dq, Into::Add);
        }
    }

    #[inline(always)]
    fn write_queries<V: Vector>(&self, queries: &Range<usize>, slab: &mut Slab<'_>, dq: &Out<E>) {
        let AttentionSpec { seq, heads, kv_heads, head_dim, scale, .. } = *self.spec;
        let (padded, group, width) = (padded(head_dim), heads / kv_heads, slab_queries(heads / kv_heads));
        for i in 0..group {
            let (from, to) =
                (Place { start: i * width, row: group * width }, Place { start: 0, row: padded });
            transpose::<V>([padded, width], (slab.dq, from), (slab.staging, to));
            for (query, values) in queries.clone().zip(slab.staging.chunks_exact(padded)) {
                let row = self.band.sequence * seq + query;
                let at = (row * heads + self.band.kv_head * group + i) * head_dim;
                // SAFETY: every band has its own rows of its own heads.
                store(values, scale.0 as f32, unsafe { dq.range(at..at + head_dim) });
            }
        }
    }

    #[inline(always)]
    fn write_keys(&self, sums: &[f32], scale: f32, to: &Out<E>) {
        let AttentionSpec { seq, kv_heads, head_dim, .. } = *self.spec;
        for (key, sums) in self.band.own.clone().zip(sums.chunks_exact(padded(head_dim))) {
            let at = ((self.band.sequence * seq + key) * kv_heads + self.band.kv_head) * head_dim;
            // SAFETY: every band has its own rows of its own kv head.
            store(sums, scale, unsafe { to.range(at..at + head_dim) });
        }
    }
}

#[inline(always)]
fn dot<E: Element>(a: &[E], b: &[E]) -> f32 {
    let mut stripes = [0.0; 32];
    for (a, b) in a.chunks(stripes.len()).zip(b.chunks(stripes.len())) {
        for (stripe, (a, b)) in stripes.iter_mut().zip(a.iter().zip(b)) {
            *stripe += a.widen() * b.widen();
        }
    }
    stripes.iter().sum()
}
