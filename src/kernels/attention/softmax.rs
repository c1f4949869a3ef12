//! Masks and the online softmax over transposed scores [keys, columns].

use std::ops::Range;

use super::{MASKED, QUERIES};
use crate::kernels::simd::Vector;

/// Which keys the queries of a block see.
#[derive(Clone, Copy)]
pub struct Sight<'a> {
    /// Segment of every key of the sequence; none where there is only one segment.
    pub segments: Option<&'a [u32]>,
    /// Whether keys after a query are hidden from it.
    pub causal: bool,
}

/// How much of a tile of scores is seen.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    All,
    Some,
    None,
}

fn bounds(segments: &[u32]) -> (u32, u32) {
    segments.iter().fold((u32::MAX, 0), |(low, high), &s| (low.min(s), high.max(s)))
}

impl Sight<'_> {
    /// `queries` and `keys` are positions in the sequence, neither empty.
    #[inline(always)]
    pub fn of(&self, queries: &Range<usize>, keys: &Range<usize>) -> Seen {
        if self.causal && keys.start >= queries.end {
            return Seen::None;
        }
        if let Some(segments) = self.segments {
            let (query_low, query_high) = bounds(&segments[queries.clone()]);
            let (key_low, key_high) = bounds(&segments[keys.clone()]);
            if query_high < key_low || key_high < query_low {
                return Seen::None;
            }
            if query_low != query_high || key_low != key_high {
                return Seen::Some;
            }
        }
        if !self.causal || keys.end <= queries.start + 1 { Seen::All } else { Seen::Some }
    }

    /// Overwrites the scores [keys, columns] of unseen keys, for every head's columns.
    #[inline(always)]
    pub fn mask(&self, queries: &Range<usize>, keys: &Range<usize>, scores: &mut [f32]) {
        let columns = scores.len() / keys.len();
        for (key, row) in keys.clone().zip(scores.chunks_exact_mut(columns)) {
            let hidden = if self.causal { key.saturating_sub(queries.start).min(QUERIES) } else { 0 };
            for row in row.chunks_exact_mut(QUERIES) {
                row[..hidden].fill(MASKED);
                if let Some(segments) = self.segments {
                    let own = segments[key];
                    for (score, segment) in row.iter_mut().zip(&segments[queries.clone()]) {
                        *score = if *segment == own { *score } else { MASKED };
                    }
                }
            }
        }
    }
}

/// The running softmax of every column.
pub struct Running<'a> {
    /// Largest score so far.
    pub maximum: &'a mut [f32],
    /// Sum of exp(score - maximum) so far.
    pub sum: &'a mut [f32],
}

impl Running<'_> {
    pub fn reset(&mut self) {
        self.maximum.fill(MASKED);
        self.sum.fill(0.0);
    }

    /// Turns scores [keys, columns] into exp(score - maximum), and rescales `weighted` [head_dim, columns], which was
    /// computed with the former maximum.
    ///
    /// A query that sees no key of the tile leaves ones behind; the first key it sees (itself at the latest) scales
    /// them to zero.
    #[inline(always)]
    pub fn update<V: Vector>(&mut self, scores: &mut [f32], weighted: &mut [f32]) {
        let columns = self.maximum.len();
        assert!(columns.is_multiple_of(V::LANES) && self.sum.len() == columns);
        for lane in (0..columns).step_by(V::LANES) {
            // SAFETY: every access is one vector at `lane` of a row of `columns` values, a multiple of the width.
            unsafe {
                let former = V::load(self.maximum.as_ptr().add(lane));
                let mut maximum = former;
                for row in scores.chunks_exact(columns) {
                    maximum = maximum.max(V::load(row.as_ptr().add(lane)));
                }
                let mut sum = V::zero();
                for row in scores.chunks_exact_mut(columns) {
                    let at = row.as_mut_ptr().add(lane);
                    let p = V::load(at).sub(maximum).exp();
                    sum = sum.add(p);
                    p.store(at);
                }
                let rescale = former.sub(maximum).exp();
                let total = self.sum.as_mut_ptr().add(lane);
                V::load(total).mul_add(rescale, sum).store(total);
                maximum.store(self.maximum.as_mut_ptr().add(lane));
                for row in weighted.chunks_exact_mut(columns) {
                    let at = row.as_mut_ptr().add(lane);
                    V::load(at).mul(rescale).store(at);
                }
            }
        }
    }
}

/// Recomputes probabilities exp(score - lse) from scores, and turns `dp` into the scores' gradient p * (dp - delta);
/// both are [keys, columns].
#[inline(always)]
pub fn gradient<V: Vector>(scores: &mut [f32], dp: &mut [f32], lse: &[f32], delta: &[f32]) {
    let columns = lse.len();
    assert!(columns.is_multiple_of(V::LANES) && delta.len() == columns);
    for lane in (0..columns).step_by(V::LANES) {
        // SAFETY: every access is one vector at `lane` of a row of `columns` values, a multiple of the width.
        unsafe {
            let lse = V::load(lse.as_ptr().add(lane));
            let delta = V::load(delta.as_ptr().add(lane));
            for (scores, dp) in scores.chunks_exact_mut(columns).zip(dp.chunks_exact_mut(columns)) {
                let (score_at, dp_at) = (scores.as_mut_ptr().add(lane), dp.as_mut_ptr().add(lane));
                let p = V::load(score_at).sub(lse).exp();
                p.store(score_at);
                p.mul(V::load(dp_at).sub(delta)).store(dp_at);
            }
        }
    }
}
