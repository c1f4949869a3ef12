//! What a forward pass reads, as graph inputs.

use std::sync::Arc;

use crate::graph::{ComputationGraph, DType, LazyTensor};

/// The tokens of one forward pass, as graph inputs; n = batch * seq.
#[derive(Debug, Clone)]
pub struct Tokens {
    pub batch: usize,
    pub seq: usize,
    /// u32 `[n]`
    pub input_ids: LazyTensor,
    /// Position of each token in its segment, u32 `[n]`.
    pub positions: LazyTensor,
    /// The longest context in use: how many positions the rope tables cover.
    pub max_positions: usize,
    pub context: Context,
}

/// What a token attends to.
#[derive(Debug, Clone)]
pub enum Context {
    /// Earlier tokens of its own segment in its own row; u32 `[n]`.
    Segments(LazyTensor),
    /// Everything in a cache of keys and values, which these tokens extend from row `start` (u32 `[1]`) on.
    Cache { start: LazyTensor, capacity: usize },
}

impl Tokens {
    /// The inputs of a training or evaluation pass.
    pub fn packed(graph: &Arc<ComputationGraph>, batch: usize, seq: usize, max_positions: usize) -> Self {
        let input = |name: &str| graph.input(name, &[batch * seq], DType::U32);
        let context = Context::Segments(input("segments"));
        Self {
            batch,
            seq,
            input_ids: input("input_ids"),
            positions: input("positions"),
            max_positions,
            context,
        }
    }

    /// The inputs of a decoding pass over `seq` tokens with a cache of `capacity` rows.
    pub fn cached(graph: &Arc<ComputationGraph>, seq: usize, capacity: usize) -> Self {
        let input = |name: &str| graph.input(name, &[seq], DType::U32);
        let context = Context::Cache { start: graph.input("start", &[1], DType::U32), capacity };
        let max_positions = capacity;
        Self {
            batch: 1,
            seq,
            input_ids: input("input_ids"),
            positions: input("positions"),
            max_positions,
            context,
        }
    }
}
