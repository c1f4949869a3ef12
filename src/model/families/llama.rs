//! Llama 2 and 3, SmolLM2 and their relatives (Touvron et al. 2023, arXiv:2302.13971).

use crate::model::{DecoderSpec, ModelConfig, rope};

/// The shared decoder with Llama's numbers.
pub fn spec(config: &ModelConfig) -> DecoderSpec {
    DecoderSpec {
        layers: config.num_hidden_layers,
        hidden: config.hidden_size,
        intermediate: config.intermediate_size,
        heads: config.num_attention_heads,
        kv_heads: config.num_key_value_heads,
        head_dim: config.head_dim,
        vocab: config.vocab_size,
        norm_epsilon: config.rms_norm_eps,
        rope_frequencies: rope::frequencies(&config.rope, config.head_dim),
        tied_head: config.tie_word_embeddings,
        attention_bias: config.attention_bias,
        mlp_bias: config.mlp_bias,
    }
}
