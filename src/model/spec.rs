//! A decoder as numbers and switches.

use super::config::ModelConfig;
use super::experts::ExpertSpec;
use super::rope::RopeSpec;
use crate::error::{Error, Result};

/// A decoder-only transformer as numbers and switches; a family fills it in from its config.json.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DecoderSpec {
    pub hidden: usize,
    pub intermediate: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub vocab: usize,
    pub norm_epsilon: f64,
    /// The rotary embeddings that layers choose from.
    pub ropes: Vec<RopeSpec>,
    /// One for each layer.
    pub layer_attention: Vec<LayerAttention>,
    /// The output projection is the embedding table.
    pub tied_head: bool,
    /// The projections to queries, keys and values have biases.
    pub query_key_value_bias: bool,
    /// The projection out of attention has a bias.
    pub output_bias: bool,
    pub mlp_bias: bool,
    /// One matrix gives queries, keys and values (`qkv_proj`), one gives gate and up (`gate_up_proj`).
    pub fused_projections: bool,
    /// Where layers have experts instead of one feed-forward.
    pub experts: Option<ExpertSpec>,
    pub norms: NormPlacement,
    /// Norm weights are stored as their difference from 1.
    pub norms_from_one: bool,
    pub head_norm: HeadNorm,
    pub gate: Gate,
    /// Multiplies the scores before the softmax.
    pub attention_scale: f64,
    /// Scores become cap * tanh(score / cap).
    pub attention_soft_cap: Option<f64>,
    /// Multiplies embeddings.
    pub embedding_scale: f64,
    /// The embeddings' factor is rounded to the type of activations first.
    pub embedding_scale_is_rounded: bool,
    /// Multiplies what each block adds to the residual stream.
    pub residual_scale: f64,
    /// Multiplies the final hidden states, and with them the logits.
    pub logits_scale: f64,
    /// Logits become cap * tanh(logit / cap).
    pub logits_soft_cap: Option<f64>,
}

/// What tells the attention of one layer from that of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerAttention {
    /// How many tokens a query sees, itself the last of them; `None` is all.
    pub window: Option<usize>,
    /// Index in [`DecoderSpec::ropes`]; `None` in a layer without positions.
    pub rope: Option<usize>,
}

/// Where a block's norms are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NormPlacement {
    /// On what enters attention and feed-forward.
    #[default]
    Before,
    /// On what they add to the residual stream.
    After,
    Both,
}

/// Norms of queries and keys, before rotary embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HeadNorm {
    #[default]
    None,
    /// Each head by itself, with one weight of `[head_dim]` for all.
    EachHead,
    /// All heads as one vector.
    AllHeads,
}

/// The function of the feed-forward's gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Gate {
    #[default]
    Silu,
    GeluTanh,
}

impl NormPlacement {
    /// Names of the norms before and after attention, and before and after the feed-forward.
    pub fn names(self) -> [Option<&'static str>; 4] {
        let (input, attention) = ("input_layernorm", "post_attention_layernorm");
        let (before, after) = ("pre_feedforward_layernorm", "post_feedforward_layernorm");
        match self {
            Self::Before => [Some(input), None, Some(attention), None],
            Self::After => [None, Some(attention), None, Some(after)],
            Self::Both => [Some(input), Some(attention), Some(before), Some(after)],
        }
    }
}

impl HeadNorm {
    /// Length of the weight for `heads` heads.
    pub fn width(self, heads: usize, head_dim: usize) -> usize {
        match self {
            Self::None => 0,
            Self::EachHead => head_dim,
            Self::AllHeads => heads * head_dim,
        }
    }
}

impl DecoderSpec {
    /// Llama's switches with a model's sizes.
    pub(super) fn plain(config: &ModelConfig) -> Self {
        let every = LayerAttention { window: None, rope: Some(0) };
        Self {
            hidden: config.hidden_size,
            intermediate: config.intermediate_size,
            heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            vocab: config.vocab_size,
            norm_epsilon: config.rms_norm_eps,
            ropes: vec![RopeSpec::new(&config.rope, config.head_dim)],
            layer_attention: vec![every; config.num_hidden_layers],
            tied_head: config.tie_word_embeddings,
            query_key_value_bias: false,
            output_bias: false,
            mlp_bias: false,
            fused_projections: false,
            experts: None,
            norms: NormPlacement::Before,
            norms_from_one: false,
            head_norm: HeadNorm::None,
            gate: Gate::Silu,
            attention_scale: 1.0 / (config.head_dim as f64).sqrt(),
            attention_soft_cap: None,
            embedding_scale: 1.0,
            embedding_scale_is_rounded: false,
            residual_scale: 1.0,
            logits_scale: 1.0,
            logits_soft_cap: None,
        }
    }

    pub fn layers(&self) -> usize {
        self.layer_attention.len()
    }

    /// Features of queries, and of keys or values, of one token.
    pub fn widths(&self) -> [usize; 2] {
        [self.heads * self.head_dim, self.kv_heads * self.head_dim]
    }

    /// What a family made of its config.json must be computable.
    pub(super) fn check(&self) -> Result<()> {
        let fine = |value: f64| value.is_finite() && value > 0.0;
        let numbers = [
            ("the scale of attention scores", Some(self.attention_scale)),
            ("the soft cap of attention scores", self.attention_soft_cap),
            ("the factor of embeddings", Some(self.embedding_scale)),
            ("the factor of residual branches", Some(self.residual_scale)),
            ("the factor of logits", Some(self.logits_scale)),
            ("the soft cap of logits", self.logits_soft_cap),
        ];
        for (name, value) in numbers {
            if let Some(value) = value.filter(|&value| !fine(value)) {
                return Err(Error::data(format!("{name} is {value}, expected a positive number")));
            }
        }
        if self.layer_attention.iter().any(|layer| layer.window == Some(0)) {
            return Err(Error::data("sliding_window is 0: a token would not see itself"));
        }
        let rotated = self.ropes.iter().map(|rope| 2 * rope.frequencies.len());
        match rotated.into_iter().find(|rotated| !(2..=self.head_dim).contains(rotated)) {
            Some(rotated) => {
                Err(Error::data(format!("{rotated} of {} features of a head are rotated", self.head_dim)))
            }
            None => Ok(()),
        }
    }
}
