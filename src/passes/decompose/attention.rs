//! Attention with the scores written out.

use crate::graph::{AttentionSpec, LazyTensor, Operation};

/// The output only: log-sum-exp serves the fused gradient.
pub(super) fn attention(inputs: &[LazyTensor], spec: &AttentionSpec) -> Vec<LazyTensor> {
    let [batch, seq] = [spec.batch, spec.seq];
    let mask = Operation::AttentionMask { batch, seq, window: spec.window, dtype: inputs[0].dtype() };
    let mask = inputs[3].then(mask, &[]);
    vec![attend(&inputs[0], &inputs[1], &inputs[2], &mask, spec)]
}

pub(super) fn cached(inputs: &[LazyTensor], spec: &AttentionSpec) -> LazyTensor {
    let capacity = inputs[1].shape().rows();
    let mask =
        Operation::CacheMask { seq: spec.seq, capacity, window: spec.window, dtype: inputs[0].dtype() };
    let mask = inputs[3].then(mask, &[]);
    attend(&inputs[0], &inputs[1], &inputs[2], &mask, spec)
}

/// softmax(scale * q k^T + mask) v, scores capped softly where there is a cap, every kv head serving a group of query heads.
fn attend(
    q: &LazyTensor,
    k: &LazyTensor,
    v: &LazyTensor,
    mask: &LazyTensor,
    spec: &AttentionSpec,
) -> LazyTensor {
    let (batch, kv, dim) = (spec.batch, spec.kv_heads, spec.head_dim);
    let group = spec.heads / kv;
    let (queries, keys) = (q.shape().rows() / batch, k.shape().rows() / batch);
    // [batch, kv heads, group, tokens, head_dim]
    let q = q.reshape(&[batch, queries, kv, group, dim]).permute(&[0, 2, 3, 1, 4]);
    let spread = |t: &LazyTensor| {
        let by_head = t.reshape(&[batch, keys, kv, 1, dim]).permute(&[0, 2, 3, 1, 4]);
        by_head.broadcast_to(&[batch, kv, group, keys, dim])
    };
    let scores = q.matmul_transposed(&spread(k));
    let scores = match spec.soft_cap {
        Some(cap) => scores.affine(spec.scale.0 / cap.0, 0.0).tanh().affine(cap.0, 0.0),
        None => scores.affine(spec.scale.0, 0.0),
    };
    let scores = scores.plus(&mask.broadcast_to(scores.dims()));
    let weights = scores.minus(&scores.max(4).broadcast_to(scores.dims())).exp();
    let weights = weights.over(&weights.sum(4).broadcast_to(weights.dims()));
    weights.matmul(&spread(v)).permute(&[0, 3, 1, 2, 4]).reshape(&[batch * queries, spec.heads * dim])
}
