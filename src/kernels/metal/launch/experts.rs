//! Launches of mixtures of experts, and of attention over a cache.

use super::{ATTENTION_THREADS, FLAT_THREADS, LARGE_TILE, Launch, ROW_THREADS, TILE_THREADS, launch};
use crate::graph::AttentionSpec;
use crate::kernels::metal::spec::{CachedNumbers, ExpertNumbers, RouteNumbers};

pub fn choose_experts(spec: RouteNumbers) -> Launch {
    launch("choose_experts", [spec.tokens.div_ceil(FLAT_THREADS), 1, 1], [FLAT_THREADS, 1, 1], &spec)
}

/// Reads what [`choose_experts`] writes.
pub fn sort_pairs(spec: RouteNumbers) -> Launch {
    launch("sort_pairs", [spec.experts, 1, 1], [ROW_THREADS, 1, 1], &spec)
}

pub fn expert_linear(spec: ExpertNumbers) -> Launch {
    let threadgroups = [spec.outputs.div_ceil(LARGE_TILE), spec.rows.div_ceil(LARGE_TILE), 1];
    launch("expert_linear", threadgroups, [TILE_THREADS, 1, 1], &spec)
}

pub fn expert_weight_gradient(spec: ExpertNumbers) -> Launch {
    let threadgroups = [spec.inputs.div_ceil(LARGE_TILE), spec.outputs.div_ceil(LARGE_TILE), spec.experts];
    launch("expert_weight_gradient", threadgroups, [TILE_THREADS, 1, 1], &spec)
}

/// `capacity` is how many keys the cache has room for.
pub fn cached_attention(spec: &AttentionSpec, capacity: u32) -> Launch {
    let numbers = CachedNumbers {
        seq: spec.seq as u32,
        heads: spec.heads as u32,
        kv_heads: spec.kv_heads as u32,
        capacity,
        window: spec.window.map_or(u32::MAX, |window| window as u32),
        scale: spec.scale.0 as f32,
        soft_cap: spec.soft_cap.map_or(0.0, |cap| cap.0 as f32),
    };
    launch("cached_attention", [numbers.heads, numbers.seq, 1], [ATTENTION_THREADS, 1, 1], &numbers)
}
