//! One decoder for every family: a description in, graph nodes out.

use std::ops::Range;
use std::sync::Arc;

use super::parameters::Parameters;
use crate::graph::{
    AttentionSpec, ComputationGraph, DType, LazyTensor, Operation, RopeTable, RopeTableKind, Scalar,
};

/// A decoder-only transformer as numbers and switches; a family fills it in from its config.json.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderSpec {
    pub layers: usize,
    pub hidden: usize,
    pub intermediate: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub vocab: usize,
    pub norm_epsilon: f64,
    /// Radians per position for each rotated pair: head_dim / 2 of them.
    pub rope_frequencies: Vec<f64>,
    /// The output projection is the embedding table.
    pub tied_head: bool,
    pub attention_bias: bool,
    pub mlp_bias: bool,
}

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

/// Cosines and sines for every token: [n, head_dim / 2].
struct Angles {
    cos: LazyTensor,
    sin: LazyTensor,
}

impl DecoderSpec {
    /// The last hidden states after the final norm: [n, hidden].
    pub fn hidden_states(&self, parameters: &Parameters<'_>, tokens: &Tokens) -> LazyTensor {
        let embedded = self.embedded(parameters, tokens);
        let x = self.through_layers(parameters, tokens, embedded, 0..self.layers);
        self.final_norm(parameters, &x)
    }

    /// What enters layer 0: [n, hidden].
    pub fn embedded(&self, parameters: &Parameters<'_>, tokens: &Tokens) -> LazyTensor {
        parameters.embedding(&tokens.input_ids, "model.embed_tokens", self.vocab, self.hidden)
    }

    /// What leaves the last of `layers`, given `x`, which enters the first: both [n, hidden].
    pub fn through_layers(
        &self,
        parameters: &Parameters<'_>,
        tokens: &Tokens,
        mut x: LazyTensor,
        layers: Range<usize>,
    ) -> LazyTensor {
        let angles = self.angles(parameters, tokens);
        for layer in layers {
            let path = format!("model.layers.{layer}");
            let normed = self.norm(parameters, &x, &format!("{path}.input_layernorm"));
            x = x.plus(&self.attention(parameters, tokens, &angles, &normed, layer));
            let normed = self.norm(parameters, &x, &format!("{path}.post_attention_layernorm"));
            x = x.plus(&self.feed_forward(parameters, &normed, &format!("{path}.mlp")));
        }
        x
    }

    /// What the output projection reads, given what leaves the last layer: both [n, hidden].
    pub fn final_norm(&self, parameters: &Parameters<'_>, x: &LazyTensor) -> LazyTensor {
        self.norm(parameters, x, "model.norm")
    }

    /// The output projection: [vocab, hidden].
    pub fn head(&self, parameters: &Parameters<'_>) -> LazyTensor {
        parameters.head(self.tied_head, self.vocab, self.hidden)
    }

    fn norm(&self, parameters: &Parameters<'_>, x: &LazyTensor, path: &str) -> LazyTensor {
        x.rms_norm(&parameters.weight(&format!("{path}.weight"), &[self.hidden]), self.norm_epsilon)
    }

    fn attention(
        &self,
        parameters: &Parameters<'_>,
        tokens: &Tokens,
        angles: &Angles,
        x: &LazyTensor,
        layer: usize,
    ) -> LazyTensor {
        let path = format!("model.layers.{layer}.self_attn");
        let (q_width, kv_width) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let project = |name: &str, width| {
            parameters.linear(x, &format!("{path}.{name}"), width, self.hidden, self.attention_bias)
        };
        let rotate = |t: LazyTensor| t.rope(&angles.cos, &angles.sin, self.head_dim);
        let q = rotate(project("q_proj", q_width)); // [n, heads * head_dim]
        let k = rotate(project("k_proj", kv_width)); // [n, kv heads * head_dim]
        let v = project("v_proj", kv_width);
        let spec = AttentionSpec {
            batch: tokens.batch,
            seq: tokens.seq,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            scale: Scalar(1.0 / (self.head_dim as f64).sqrt()),
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
        parameters.linear(&mixed, &format!("{path}.o_proj"), self.hidden, q_width, self.attention_bias)
    }

    fn feed_forward(&self, parameters: &Parameters<'_>, x: &LazyTensor, path: &str) -> LazyTensor {
        let (hidden, wide) = (self.hidden, self.intermediate);
        let gate = parameters.linear(x, &format!("{path}.gate_proj"), wide, hidden, self.mlp_bias);
        let up = parameters.linear(x, &format!("{path}.up_proj"), wide, hidden, self.mlp_bias);
        parameters.linear(&gate.swiglu(&up), &format!("{path}.down_proj"), hidden, wide, self.mlp_bias)
    }

    fn angles(&self, parameters: &Parameters<'_>, tokens: &Tokens) -> Angles {
        let table = |kind| {
            let frequencies = self.rope_frequencies.iter().map(|&f| Scalar(f)).collect();
            let table = RopeTable { positions: tokens.max_positions, frequencies, kind };
            let dims = [tokens.max_positions, self.head_dim / 2];
            let leaf = parameters.graph().leaf(Operation::RopeTable(table), &dims, parameters.angle_dtype());
            leaf.embedding(&tokens.positions)
        };
        Angles { cos: table(RopeTableKind::Cosine), sin: table(RopeTableKind::Sine) }
    }
}
