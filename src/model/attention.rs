//! The attention of a layer as graph nodes.

use super::decoder::Angles;
use super::parameters::Parameters;
use super::spec::{DecoderSpec, HeadNorm};
use super::tokens::{Context, Tokens};
use crate::graph::{AttentionSpec, LazyTensor, Operation, Scalar};

impl DecoderSpec {
    /// [n, hidden] -> [n, hidden]
    pub(super) fn attention(
        &self,
        parameters: &Parameters<'_>,
        tokens: &Tokens,
        angles: &[Angles],
        x: &LazyTensor,
        layer: usize,
    ) -> LazyTensor {
        let path = format!("model.layers.{layer}.self_attn");
        let [query_width, kv_width] = self.widths();
        let kind = self.layer_attention[layer];
        let [q, k, v] = self.queries_keys_values(parameters, x, &path);
        let prepared = |t: LazyTensor, norm: &str| {
            let t = self.normalized_heads(parameters, t, &format!("{path}.{norm}"));
            match kind.rope {
                Some(rope) => self.rotated(&t, &angles[rope]),
                None => t,
            }
        };
        let (q, k) = (prepared(q, "q_norm"), prepared(k, "k_norm"));
        let spec = AttentionSpec {
            batch: tokens.batch,
            seq: tokens.seq,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            scale: Scalar(self.attention_scale),
            window: kind.window,
            soft_cap: self.attention_soft_cap.map(Scalar),
        };
        let mixed = match &tokens.context {
            Context::Segments(segments) => q.attention(&k, &v, segments, spec),
            Context::Cache { start, capacity } => {
                let extend = |name: &str, rows: &LazyTensor| {
                    let cache =
                        x.graph().state(&format!("cache.{layer}.{name}"), &[*capacity, kv_width], x.dtype());
                    cache.then(Operation::WriteRows, &[rows, start])
                };
                q.then(Operation::CachedAttention(spec), &[&extend("k", &k), &extend("v", &v), start])
            }
        };
        parameters.linear(&mixed, &format!("{path}.o_proj"), self.hidden, query_width, self.output_bias)
    }

    /// q [n, heads * head_dim], k and v [n, kv heads * head_dim]
    fn queries_keys_values(
        &self,
        parameters: &Parameters<'_>,
        x: &LazyTensor,
        path: &str,
    ) -> [LazyTensor; 3] {
        let [query_width, kv_width] = self.widths();
        let project = |name: &str, width| {
            parameters.linear(x, &format!("{path}.{name}"), width, self.hidden, self.query_key_value_bias)
        };
        if self.fused_projections {
            let all = project("qkv_proj", query_width + 2 * kv_width);
            let part = |start, width| all.slice(1, start, width);
            return [
                part(0, query_width),
                part(query_width, kv_width),
                part(query_width + kv_width, kv_width),
            ];
        }
        [project("q_proj", query_width), project("k_proj", kv_width), project("v_proj", kv_width)]
    }

    fn normalized_heads(&self, parameters: &Parameters<'_>, x: LazyTensor, path: &str) -> LazyTensor {
        let (tokens, features) = (x.shape().rows(), x.shape().last());
        let heads = features / self.head_dim;
        let width = self.head_norm.width(heads, self.head_dim);
        match self.head_norm {
            HeadNorm::None => x,
            HeadNorm::AllHeads => self.norm(parameters, &x, path, width),
            HeadNorm::EachHead => {
                let by_head = x.reshape(&[tokens * heads, width]);
                self.norm(parameters, &by_head, path, width).reshape(&[tokens, features])
            }
        }
    }

    /// Rotates the first features of each head: as many as there are angles, twice.
    fn rotated(&self, x: &LazyTensor, angles: &Angles) -> LazyTensor {
        let (tokens, features) = (x.shape().rows(), x.shape().last());
        let (rotated, head_dim) = (2 * angles.cos.shape().last(), self.head_dim);
        if rotated == head_dim {
            return x.rope(&angles.cos, &angles.sin, head_dim);
        }
        let heads = features / head_dim;
        let by_head = x.reshape(&[tokens * heads, head_dim]);
        let turned = by_head.slice(1, 0, rotated).reshape(&[tokens, heads * rotated]);
        let turned = turned.rope(&angles.cos, &angles.sin, rotated).reshape(&[tokens * heads, rotated]);
        let kept = by_head.slice(1, rotated, head_dim - rotated);
        turned.concat(1, &[&kept]).reshape(&[tokens, features])
    }
}
