//! One decoder for every family: a description in, graph nodes out.

use std::ops::Range;

use super::parameters::Parameters;
use super::rope::RopeSpec;
use super::spec::{DecoderSpec, Gate};
use super::tokens::{Context, Tokens};
use crate::graph::{DType, LazyTensor, Operation, RopeTable, RopeTableKind, Scalar};

/// Cosines and sines for every token: [n, rotated pairs].
pub(super) struct Angles {
    pub cos: LazyTensor,
    pub sin: LazyTensor,
}

impl DecoderSpec {
    /// The last hidden states after the final norm: [n, hidden].
    pub fn hidden_states(&self, parameters: &Parameters<'_>, tokens: &Tokens) -> LazyTensor {
        let embedded = self.embedded(parameters, tokens);
        let x = self.through_layers(parameters, tokens, embedded, 0..self.layers());
        self.final_norm(parameters, &x)
    }

    /// What enters layer 0: [n, hidden].
    pub fn embedded(&self, parameters: &Parameters<'_>, tokens: &Tokens) -> LazyTensor {
        let embedded = parameters.embedding(&tokens.input_ids, "model.embed_tokens", self.vocab, self.hidden);
        let factor = self.embedding_scale;
        let factor = match embedded.dtype() {
            DType::Bf16 if self.embedding_scale_is_rounded => half::bf16::from_f64(factor).to_f64(),
            DType::F32 if self.embedding_scale_is_rounded => f64::from(factor as f32),
            DType::Bf16 | DType::F32 | DType::F64 | DType::U32 => factor,
        };
        scaled(embedded, factor)
    }

    /// What leaves the last of `layers`, given `x`, which enters the first: both [n, hidden].
    pub fn through_layers(
        &self,
        parameters: &Parameters<'_>,
        tokens: &Tokens,
        mut x: LazyTensor,
        layers: Range<usize>,
    ) -> LazyTensor {
        let angles: Vec<Angles> = self.ropes.iter().map(|rope| angles(rope, parameters, tokens)).collect();
        for layer in layers {
            let path = format!("model.layers.{layer}");
            let norm = |x: &LazyTensor, name: Option<&str>| match name {
                Some(name) => self.norm(parameters, x, &format!("{path}.{name}"), self.hidden),
                None => x.clone(),
            };
            let [before_attention, after_attention, before_mlp, after_mlp] = self.norms.names();
            let mixed = self.attention(parameters, tokens, &angles, &norm(&x, before_attention), layer);
            x = x.plus(&scaled(norm(&mixed, after_attention), self.residual_scale));
            let enters = norm(&x, before_mlp);
            let fed = match self.experts_of(layer) {
                Some(experts) => self.mixture(parameters, experts, &enters, layer),
                None => self.feed_forward(parameters, &enters, &format!("{path}.mlp")),
            };
            x = x.plus(&scaled(norm(&fed, after_mlp), self.residual_scale));
        }
        x
    }

    /// What the output projection reads, given what leaves the last layer: both [n, hidden].
    pub fn final_norm(&self, parameters: &Parameters<'_>, x: &LazyTensor) -> LazyTensor {
        scaled(self.norm(parameters, x, "model.norm", self.hidden), self.logits_scale)
    }

    /// The output projection's input and weight, given final hidden states [n, hidden].
    fn head(&self, parameters: &Parameters<'_>, x: &LazyTensor) -> [LazyTensor; 2] {
        parameters.head(x, self.tied_head, self.vocab, self.hidden)
    }

    /// Logits of tokens whose final hidden states are `x`: [n, hidden] -> [n, vocab].
    pub fn logits(&self, parameters: &Parameters<'_>, x: &LazyTensor) -> LazyTensor {
        let [x, head] = self.head(parameters, x);
        let logits = x.linear(&head);
        match self.logits_soft_cap {
            Some(cap) => logits.affine(1.0 / cap, 0.0).tanh().affine(cap, 0.0),
            None => logits,
        }
    }

    /// The loss of each token, given its final hidden state and its target u32 `[n]`: [n, hidden] -> `[n]`.
    pub fn losses(&self, parameters: &Parameters<'_>, x: &LazyTensor, targets: &LazyTensor) -> LazyTensor {
        let [x, head] = self.head(parameters, x);
        x.projected_cross_entropy(&head, targets, self.logits_soft_cap)
    }

    pub(super) fn norm(
        &self,
        parameters: &Parameters<'_>,
        x: &LazyTensor,
        path: &str,
        width: usize,
    ) -> LazyTensor {
        let weight = parameters.weight(&format!("{path}.weight"), &[width]);
        let weight = if self.norms_from_one { weight.affine(1.0, 1.0) } else { weight };
        x.rms_norm(&weight, self.norm_epsilon)
    }

    fn feed_forward(&self, parameters: &Parameters<'_>, x: &LazyTensor, path: &str) -> LazyTensor {
        let (hidden, wide) = (self.hidden, self.intermediate);
        let project =
            |name: &str, width| parameters.linear(x, &format!("{path}.{name}"), width, hidden, self.mlp_bias);
        let (gate, up) = if self.fused_projections {
            let both = project("gate_up_proj", 2 * wide); // [n, gate and up]
            (both.slice(1, 0, wide), both.slice(1, wide, wide))
        } else {
            (project("gate_proj", wide), project("up_proj", wide))
        };
        let gated = match self.gate {
            Gate::Silu => gate.swiglu(&up),
            Gate::GeluTanh => gate.geglu(&up),
        };
        parameters.linear(&gated, &format!("{path}.down_proj"), hidden, wide, self.mlp_bias)
    }
}

fn scaled(x: LazyTensor, factor: f64) -> LazyTensor {
    if factor == 1.0 { x } else { x.affine(factor, 0.0) }
}

fn angles(rope: &RopeSpec, parameters: &Parameters<'_>, tokens: &Tokens) -> Angles {
    let reaches_beyond = rope.beyond.as_ref().filter(|beyond| tokens.max_positions > beyond.context);
    let of = |frequencies: &[f64]| -> [LazyTensor; 2] {
        [RopeTableKind::Cosine, RopeTableKind::Sine].map(|kind| {
            let dims = [tokens.max_positions, frequencies.len()];
            let frequencies = frequencies.iter().map(|&f| Scalar(f)).collect();
            let table = RopeTable { positions: tokens.max_positions, frequencies, kind };
            let leaf = parameters.graph().leaf(Operation::RopeTable(table), &dims, parameters.angle_dtype());
            scaled(leaf, rope.magnitude).embedding(&tokens.positions)
        })
    };
    let [cos, sin] = match (reaches_beyond, &tokens.context) {
        (None, _) => of(&rope.frequencies),
        // The keys of a cache are rotated once: what it has room for decides.
        (Some(beyond), Context::Cache { .. }) => of(&beyond.frequencies),
        (Some(beyond), Context::Segments(_)) => {
            let is_long = is_beyond(beyond.context, parameters, tokens);
            let [short, long] = [of(&rope.frequencies), of(&beyond.frequencies)];
            [0, 1].map(|kind| {
                let is_long = is_long.broadcast_to(short[kind].dims());
                let is_short = is_long.affine(-1.0, 1.0);
                short[kind].times(&is_short).plus(&long[kind].times(&is_long))
            })
        }
    };
    Angles { cos, sin }
}

/// 1 where any token of the batch stands beyond `context` tokens of its segment, else 0: [1, 1]. As in transformers, one
/// long row decides for the whole batch.
fn is_beyond(context: usize, parameters: &Parameters<'_>, tokens: &Tokens) -> LazyTensor {
    let table = RopeTable {
        positions: tokens.max_positions,
        frequencies: [Scalar(0.0)].into(),
        kind: RopeTableKind::Cosine,
    };
    let dims = [tokens.max_positions, 1];
    let ones = parameters.graph().leaf(Operation::RopeTable(table), &dims, parameters.angle_dtype());
    let within = ones.slice(0, 0, context).filled(0.0);
    let step = within.concat(0, &[&ones.slice(0, context, tokens.max_positions - context)]);
    step.embedding(&tokens.positions).max(0)
}
