//! Masks and the online softmax over transposed scores [keys, columns].

use std::ops::Range;

use super::format::Format;
use super::{LOWEST, MASKED};
use crate::kernels::simd::Vector;

/// Which keys the queries of a block see.
#[derive(Clone, Copy)]
pub struct Sight<'a> {
    /// Segment of every key of the sequence; none where there is only one segment.
    pub segments: Option<&'a [u32]>,
    /// Whether keys after a query are hidden from it.
    pub causal: bool,
    /// How many keys up to its own a query sees; [`EVERYTHING`] where all.
    pub window: usize,
}

/// The window of a query that sees all keys.
pub const EVERYTHING: usize = usize::MAX;

/// How much of a tile of scores is seen.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    All,
    Some,
    None,
}

/// Smallest and largest, each in a pass that vectorizes.
#[inline(always)]
fn bounds(segments: &[u32]) -> (u32, u32) {
    let low = segments.iter().fold(u32::MAX, |low, &segment| low.min(segment));
    (low, segments.iter().fold(0, |high, &segment| high.max(segment)))
}

impl Sight<'_> {
    /// `queries` and `keys` are positions in the sequence, neither empty. An odd number of keys is not all seen: the one
    /// that makes it even is hidden.
    #[inline(always)]
    pub fn of(&self, queries: &Range<usize>, keys: &Range<usize>) -> Seen {
        if self.causal && keys.start >= queries.end {
            return Seen::None;
        }
        // The first query's window begins behind the last key.
        if keys.end.saturating_add(self.window) <= queries.start + 1 {
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
        let last_query_sees_first_key = keys.start.saturating_add(self.window) >= queries.end;
        if !keys.len().is_multiple_of(2) || !last_query_sees_first_key {
            return Seen::Some;
        }
        if !self.causal || keys.end <= queries.start + 1 { Seen::All } else { Seen::Some }
    }

    /// Fills limits [at least keys, width]: infinity where the query sees the key, [`MASKED`] where not.
    #[inline(always)]
    pub fn limits(&self, queries: &Range<usize>, keys: &Range<usize>, width: usize, limits: &mut [f32]) {
        for (key, row) in (keys.start..).zip(limits.chunks_exact_mut(width)) {
            let hidden = match key {
                _ if key >= keys.end => width,
                _ if self.causal => key.saturating_sub(queries.start).min(width),
                _ => 0,
            };
            for (query, limit) in row.iter_mut().enumerate() {
                *limit = if query < hidden { MASKED } else { f32::INFINITY };
            }
            // Queries from here on have moved on.
            let expired = key.saturating_add(self.window).saturating_sub(queries.start);
            if expired < width {
                row[expired..].fill(MASKED);
            }
            if let Some(segments) = self.segments.filter(|_| key < keys.end) {
                let own = segments[key];
                for (limit, segment) in row.iter_mut().zip(&segments[queries.clone()]) {
                    *limit = if *segment == own { *limit } else { MASKED };
                }
            }
        }
    }
}

/// The scores [keys, columns] of unseen keys become [`MASKED`]: `limits` [keys, width] hold for every head.
#[inline(always)]
pub fn mask<V: Vector>(scores: &mut [f32], columns: usize, limits: &[f32], width: usize) {
    assert!(width.is_multiple_of(V::LANES) && columns.is_multiple_of(width));
    for (scores, limits) in scores.chunks_exact_mut(columns).zip(limits.chunks_exact(width)) {
        for scores in scores.chunks_exact_mut(width) {
            for lane in (0..width).step_by(V::LANES) {
                // SAFETY: one vector at `lane` of rows of `width` values, a multiple of the vector's.
                unsafe {
                    let at = scores.as_mut_ptr().add(lane);
                    V::load(limits.as_ptr().add(lane)).min(V::load(at)).store(at);
                }
            }
        }
    }
}

/// Scores become tanh(factor * score); the softmax then multiplies them by the cap.
#[inline(always)]
pub fn cap<V: Vector>(scores: &mut [f32], factor: f32) {
    assert!(scores.len().is_multiple_of(V::LANES));
    for scores in scores.chunks_exact_mut(V::LANES) {
        // SAFETY: a chunk is one vector.
        unsafe { V::load(scores.as_ptr()).mul(V::splat(factor)).tanh().store(scores.as_mut_ptr()) };
    }
}

/// The running softmax of every column.
pub struct Running<'a> {
    /// Largest score so far.
    pub maximum: &'a mut [f32],
    /// Sum of the exponentials so far.
    pub sum: &'a mut [f32],
}

impl Running<'_> {
    pub fn reset(&mut self) {
        self.maximum.fill(LOWEST);
        self.sum.fill(0.0);
    }

    /// Turns scores [keys, columns] into factors 2^(factor * (score - maximum)) along the keys, in place, and rescales
    /// `weighted` [head_dim, columns], which was computed with the former maximum. The number of keys is even.
    #[inline(always)]
    pub fn update<V: Vector, F: Format>(&mut self, factor: f32, scores: &mut [f32], weighted: &mut [f32]) {
        let columns = self.maximum.len();
        let keys = scores.len() / columns;
        assert!(columns.is_multiple_of(V::LANES) && self.sum.len() == columns && keys.is_multiple_of(2));
        let factor = V::splat(factor);
        for lane in (0..columns).step_by(V::LANES) {
            // SAFETY: every access is one vector at `lane` of a row of `columns` values, a multiple of the width.
            unsafe {
                let former = V::load(self.maximum.as_ptr().add(lane));
                let mut maximum = former;
                for row in scores.chunks_exact(columns) {
                    maximum = maximum.max(V::load(row.as_ptr().add(lane)));
                }
                let offset = V::zero().sub(maximum.mul(factor));
                let mut sums = [V::zero(); 2];
                let at = scores.as_mut_ptr().add(lane);
                for row in (0..keys).step_by(2) {
                    let first = V::load(at.add(row * columns)).mul_add(factor, offset).exp2();
                    let second = V::load(at.add((row + 1) * columns)).mul_add(factor, offset).exp2();
                    sums = [sums[0].add(first), sums[1].add(second)];
                    F::store_across([first, second], at, row, columns);
                }
                let rescale = former.sub(maximum).mul(factor).exp2();
                let total = self.sum.as_mut_ptr().add(lane);
                V::load(total).mul_add(rescale, sums[0].add(sums[1])).store(total);
                maximum.store(self.maximum.as_mut_ptr().add(lane));
                // Zero where all maxima stay: later tiles seldom change them.
                if maximum.sub(former).largest() != 0.0 {
                    for row in weighted.chunks_exact_mut(columns) {
                        let at = row.as_mut_ptr().add(lane);
                        V::load(at).mul(rescale).store(at);
                    }
                }
            }
        }
    }
}
