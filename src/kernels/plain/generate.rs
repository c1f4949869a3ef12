//! Tensors made from numbers rather than from other tensors.

use std::sync::Arc;

use bytemuck::Pod;

use crate::error::{Error, Result};
use crate::graph::{RopeTableKind, Scalar};
use crate::kernels::body::Body;
use crate::kernels::number::{Float, Real};
use crate::kernels::simd::Vector;
use crate::kernels::split::{Split, expect_len};
use crate::kernels::{In, Out};

/// What is added to the score of a key that the query does not see: its exponential is 0 next to any real score.
pub const MASKED: f64 = -1e30;

/// A tensor filled with one value.
#[derive(Debug)]
pub struct Fill<T> {
    value: T,
    y: Out<T>,
    split: Split,
}

impl<T: Pod + Send + Sync> Fill<T> {
    pub fn new(value: T, y: Out<T>) -> Self {
        Self { value, y, split: Split::rows(y.len(), size_of::<T>()) }
    }
}

impl<T: Pod + Send + Sync> Body for Fill<T> {
    fn parts(&self) -> usize {
        self.split.count()
    }

    #[inline(always)]
    fn compute<V: Vector>(&self, part: usize, _scratch: &mut [u8]) {
        // SAFETY: parts are disjoint ranges of y.
        unsafe { self.y.range(self.split.range(part)) }.fill(self.value);
    }
}

/// -> [positions, head_dim / 2]: cosines or sines of `position * frequency`, computed in f64 and rounded.
#[derive(Debug)]
pub struct RopeTable<T> {
    frequencies: Arc<[Scalar]>,
    kind: RopeTableKind,
    y: Out<T>,
    split: Split,
}

impl<T: Float> RopeTable<T> {
    /// # Errors
    /// An internal error if y is not [positions, frequencies].
    pub fn new(positions: usize, frequencies: Arc<[Scalar]>, kind: RopeTableKind, y: Out<T>) -> Result<Self> {
        expect_len("the rope table", y.len(), positions * frequencies.len())?;
        let split = Split::by(positions, 64);
        Ok(Self { frequencies, kind, y, split })
    }
}

impl<T: Float> Body for RopeTable<T> {
    fn parts(&self) -> usize {
        self.split.count()
    }

    #[inline(always)]
    fn compute<V: Vector>(&self, part: usize, _scratch: &mut [u8]) {
        let width = self.frequencies.len();
        for position in self.split.range(part) {
            // SAFETY: parts are disjoint ranges of rows.
            let y = unsafe { self.y.range(position * width..(position + 1) * width) };
            for (y, frequency) in y.iter_mut().zip(self.frequencies.iter()) {
                let angle = position as f64 * frequency.0;
                *y = T::from_f64(match self.kind {
                    RopeTableKind::Cosine => Real::cos(angle),
                    RopeTableKind::Sine => Real::sin(angle),
                });
            }
        }
    }
}

/// (segments [batch * seq]) -> [batch, 1, 1, seq, seq]: 0 where the query sees the key, [`MASKED`] elsewhere.
#[derive(Debug)]
pub struct AttentionMask<T> {
    seq: usize,
    /// How many keys a query sees at most.
    window: usize,
    segments: In<u32>,
    y: Out<T>,
    /// Rows of keys, one for each query of each sequence.
    split: Split,
}

impl<T: Float> AttentionMask<T> {
    /// # Errors
    /// An internal error if the lengths do not fit.
    pub fn new(
        [batch, seq]: [usize; 2],
        window: Option<usize>,
        segments: In<u32>,
        y: Out<T>,
    ) -> Result<Self> {
        expect_len("the segments", segments.len(), batch * seq)?;
        expect_len("the attention mask", y.len(), batch * seq * seq)?;
        let split = Split::rows(batch * seq, seq * size_of::<T>());
        Ok(Self { seq, window: window.unwrap_or(seq), segments, y, split })
    }
}

impl<T: Float> Body for AttentionMask<T> {
    fn parts(&self) -> usize {
        self.split.count()
    }

    #[inline(always)]
    fn compute<V: Vector>(&self, part: usize, _scratch: &mut [u8]) {
        let (seen, unseen) = (T::from_f64(0.0), T::from_f64(MASKED));
        for row in self.split.range(part) {
            let (start, query) = (row / self.seq * self.seq, row % self.seq);
            let keys = &self.segments.as_slice()[start..start + self.seq];
            // SAFETY: parts are disjoint ranges of rows.
            let y = unsafe { self.y.range(row * self.seq..(row + 1) * self.seq) };
            for (key, (y, segment)) in y.iter_mut().zip(keys).enumerate() {
                let near = key <= query && query - key < self.window;
                *y = if near && *segment == keys[query] { seen } else { unseen };
            }
        }
    }
}

/// (start `[1]`) -> [1, 1, 1, seq, capacity]: 0 where the query at position start + i sees cached key j <= start + i,
/// [`MASKED`] elsewhere.
#[derive(Debug)]
pub struct CacheMask<T> {
    capacity: usize,
    /// How many keys a query sees at most.
    window: usize,
    start: In<u32>,
    y: Out<T>,
    split: Split,
}

impl<T: Float> CacheMask<T> {
    /// # Errors
    /// An internal error if the lengths do not fit.
    pub fn new(
        [seq, capacity]: [usize; 2],
        window: Option<usize>,
        start: In<u32>,
        y: Out<T>,
    ) -> Result<Self> {
        expect_len("the first query's position", start.len(), 1)?;
        expect_len("the cache mask", y.len(), seq * capacity)?;
        let split = Split::rows(seq, capacity * size_of::<T>());
        Ok(Self { capacity, window: window.unwrap_or(capacity), start, y, split })
    }
}

impl<T: Float> Body for CacheMask<T> {
    fn parts(&self) -> usize {
        self.split.count()
    }

    #[inline(always)]
    fn compute<V: Vector>(&self, part: usize, _scratch: &mut [u8]) {
        let start = self.start.as_slice()[0] as usize;
        for row in self.split.range(part) {
            // SAFETY: parts are disjoint ranges of rows.
            let y = unsafe { self.y.range(row * self.capacity..(row + 1) * self.capacity) };
            let end = (start + row + 1).min(self.capacity);
            y.fill(T::from_f64(MASKED));
            y[end.saturating_sub(self.window)..end].fill(T::from_f64(0.0));
        }
    }
}

/// (seed `[2]`) -> 0 with the given probability, else 1 / (1 - probability).
///
/// The bits come from Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): block i gives
/// elements 4i..4i + 4, so that every part computes its own.
#[derive(Debug)]
pub struct DropoutMask<T> {
    stream: u32,
    /// An element is dropped when its 32 random bits are below this.
    threshold: u64,
    keep: T,
    seed: In<u32>,
    y: Out<T>,
    split: Split,
}

impl<T: Float> DropoutMask<T> {
    /// # Errors
    /// An internal error if there are not two words of seed, or if the probability is not in 0..1.
    pub fn new(stream: u32, probability: f64, seed: In<u32>, y: Out<T>) -> Result<Self> {
        expect_len("the seed", seed.len(), 2)?;
        if !(0.0..1.0).contains(&probability) {
            return Err(Error::internal(format!("dropout with probability {probability}")));
        }
        let threshold = (probability * 4_294_967_296.0).round() as u64;
        let keep = T::from_f64(1.0 / (1.0 - probability));
        Ok(Self { stream, threshold, keep, seed, y, split: Split::by(y.len(), 32 << 10) })
    }
}

/// Ten rounds of Philox4x32; its first four outputs for a zero key and counter are checked in the tests.
#[inline(always)]
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = u64::from(counter[0]) * 0xd251_1f53;
        let b = u64::from(counter[2]) * 0xcd9e_8d57;
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
    }
    counter
}

impl<T: Float> Body for DropoutMask<T> {
    fn parts(&self) -> usize {
        self.split.count()
    }

    #[inline(always)]
    fn compute<V: Vector>(&self, part: usize, _scratch: &mut [u8]) {
        let seed = self.seed.as_slice();
        let range = self.split.range(part);
        let first = range.start / 4;
        // SAFETY: parts are disjoint ranges of y, each starting at a multiple of four.
        let y = unsafe { self.y.range(range) };
        for (i, block) in y.chunks_mut(4).enumerate() {
            let index = (first + i) as u64;
            let random = philox([index as u32, (index >> 32) as u32, self.stream, 0], [seed[0], seed[1]]);
            for (y, bits) in block.iter_mut().zip(random) {
                *y = if u64::from(bits) < self.threshold { T::from_f64(0.0) } else { self.keep };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::philox;

    #[test]
    fn philox_gives_the_published_vectors() {
        // Known answers of the Random123 distribution.
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
    }
}
