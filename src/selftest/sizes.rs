//! Extents that operations are tried with.

/// Of one model and batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    pub batch: usize,
    pub seq: usize,
    pub hidden: usize,
    pub intermediate: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Of adapters.
    pub rank: usize,
    pub vocab: usize,
    /// Tokens that a query sees in a layer with a sliding window.
    pub window: usize,
    /// Length of the sequences that are packed into a row.
    pub packed: usize,
    pub experts: usize,
}

impl Sizes {
    /// No extent is a multiple of a tile's, and every row holds several sequences.
    pub const RAGGED: Self = Self {
        batch: 2,
        seq: 37,
        hidden: 100,
        intermediate: 212,
        heads: 6,
        kv_heads: 2,
        head_dim: 20,
        rank: 5,
        vocab: 301,
        window: 9,
        packed: 15,
        experts: 3,
    };

    /// SmolLM2-135M on 4 rows of 512 tokens.
    pub const REAL: Self = Self {
        batch: 4,
        seq: 512,
        hidden: 576,
        intermediate: 1536,
        heads: 9,
        kv_heads: 3,
        head_dim: 64,
        rank: 8,
        vocab: 49_152,
        window: 128,
        packed: 200,
        experts: 4,
    };

    pub fn tokens(&self) -> usize {
        self.batch * self.seq
    }

    /// Ids below `bound`, spread by a multiplicative hash; every eleventh is `other`.
    pub fn ids(&self, bound: usize, other: u32) -> Vec<u32> {
        let id = |token: usize| ((token as u64 * 2_654_435_761) % (1 << 32) % bound as u64) as u32;
        (0..self.tokens()).map(|token| if token % 11 == 5 { other } else { id(token) }).collect()
    }
}
