//! The gradient of attention, as parts.

use super::format::{Pairs, Single, in_pairs};
use super::sweep::{Band, Sweep};
use super::{KEYS, check};
use crate::error::Result;
use crate::graph::AttentionSpec;
use crate::kernels::body::Body;
use crate::kernels::number::Element;
use crate::kernels::simd::Vector;
use crate::kernels::split::{expect_len, hardware_threads};
use crate::kernels::{In, Out};

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
    /// How many parts should be at work at a time.
    pub(super) threads: usize,
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
        Ok(Self { spec, inputs, dq, dk, dv, threads: hardware_threads() })
    }

    /// Sequences' kv heads, and how many of them are one band; the others are cut into as many bands as returned.
    ///
    /// How many bands there are changes no bit: every gradient sums its tiles in the same order.
    fn bands(&self) -> (usize, usize, usize) {
        let pairs = self.spec.batch * self.spec.kv_heads;
        let rest = pairs % self.threads;
        let bands = if rest == 0 { 1 } else { self.threads.div_ceil(rest).min(self.spec.seq.div_ceil(KEYS)) };
        (pairs, pairs - rest, bands)
    }

    /// Whole sequences first: they take longest.
    fn band(&self, part: usize) -> Band {
        let AttentionSpec { seq, kv_heads, .. } = self.spec;
        let (_, whole, bands) = self.bands();
        let (pair, own) = match part.checked_sub(whole) {
            None => (part, 0..seq),
            Some(part) => (
                whole + part / bands,
                boundary(seq, part % bands, bands)..boundary(seq, part % bands + 1, bands),
            ),
        };
        Band { sequence: pair / kv_heads, kv_head: pair % kv_heads, own }
    }
}

/// Where band `index` of `bands` begins. A key costs its band four products with every later query, a query three with
/// every earlier key: of seq positions, position x costs about 4 seq - x.
fn boundary(seq: usize, index: usize, bands: usize) -> usize {
    if index == bands {
        return seq;
    }
    let share = 4.0 - (16.0 - 7.0 * index as f64 / bands as f64).sqrt();
    ((share * seq as f64 / KEYS as f64).round() as usize * KEYS).min(seq)
}

impl<E: Element> Body for AttentionGrad<E> {
    fn parts(&self) -> usize {
        let (pairs, whole, bands) = self.bands();
        if self.spec.seq == 0 { 0 } else { whole + (pairs - whole) * bands }
    }

    fn scratch_bytes(&self) -> usize {
        size_of::<f32>() * Sweep::<E>::floats(&self.spec)
    }

    #[inline(always)]
    fn compute<V: Vector>(&self, part: usize, scratch: &mut [u8]) {
        let sweep = Sweep { spec: &self.spec, inputs: &self.inputs, band: self.band(part) };
        let gradients = [&self.dq, &self.dk, &self.dv];
        if in_pairs::<E, V>() {
            sweep.run::<V, Pairs>(scratch, gradients);
        } else {
            sweep.run::<V, Single>(scratch, gradients);
        }
    }
}
