//! What a model is: sizes, rotary embedding, special tokens.

use serde_json::{Map, Value, json};

use super::spec::DecoderSpec;
use crate::error::{Error, Result};

/// The decoder families that can be trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    Llama,
    Mistral,
    Mixtral,
    Qwen2,
    Qwen3,
    Qwen3Moe,
    SmolLm3,
    Granite,
    Olmo2,
    Phi3,
    Gemma2,
    Gemma3,
}

/// How rotary position embeddings turn a position into angles.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// Base of the geometric series of wavelengths.
    pub theta: f64,
    pub scaling: RopeScaling,
}

/// Changes to the frequencies for contexts longer than pretraining's.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    None,
    /// Positions divided by `factor`.
    Linear {
        factor: f64,
    },
    /// Low frequencies divided by `factor`, high ones kept, smoothly in between (Llama 3.1).
    Llama3 {
        factor: f64,
        low_freq_factor: f64,
        high_freq_factor: f64,
        original_max_position_embeddings: usize,
    },
    Yarn(YarnScaling),
    LongRope(LongRope),
}

/// Long wavelengths are divided by `factor`, short ones kept, and attention is sharpened (Peng et al. 2023,
/// arXiv:2309.00071).
#[derive(Debug, Clone, PartialEq)]
pub struct YarnScaling {
    pub factor: f64,
    pub original_max_position_embeddings: usize,
    /// Pairs that turn more often than this in the original context keep their frequency.
    pub beta_fast: f64,
    /// Pairs that turn less often than this are divided by the whole factor.
    pub beta_slow: f64,
    /// Multiplies cosines and sines.
    pub attention_factor: f64,
    /// Whether the blended range is widened to whole pairs.
    pub truncate: bool,
}

/// A divisor for each frequency, one set of them within the original context and one beyond it (Ding et al. 2024,
/// arXiv:2402.13753).
#[derive(Debug, Clone, PartialEq)]
pub struct LongRope {
    pub short_factor: Vec<f64>,
    pub long_factor: Vec<f64>,
    pub original_max_position_embeddings: usize,
    /// Multiplies cosines and sines.
    pub attention_factor: f64,
}

/// A causal language model's sizes and constants.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    pub architecture: Architecture,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub head_dim: usize,
    pub rms_norm_eps: f64,
    pub rope: RopeConfig,
    /// Whether the output projection is the embedding matrix.
    pub tie_word_embeddings: bool,
    /// Tokens of context that the model was made for.
    pub max_position_embeddings: usize,
    pub bos_token_id: Option<u32>,
    pub eos_token_ids: Vec<u32>,
    pub pad_token_id: Option<u32>,
    /// The family's switches; its sizes are those above.
    pub(super) decoder: DecoderSpec,
    /// The `config.json` that this was read from, for writing it back with every field it had.
    pub(super) original: Map<String, Value>,
}

impl ModelConfig {
    /// Sizes must be positive, bounded and divide where heads share; the error names the field.
    pub(super) fn check(&self) -> Result<()> {
        let sizes = [
            ("vocab_size", self.vocab_size, 1 << 24),
            ("hidden_size", self.hidden_size, 1 << 20),
            ("intermediate_size", self.intermediate_size, 1 << 22),
            ("num_hidden_layers", self.num_hidden_layers, 4096),
            ("num_attention_heads", self.num_attention_heads, 1 << 14),
            ("num_key_value_heads", self.num_key_value_heads, 1 << 14),
            ("head_dim", self.head_dim, 1 << 14),
            ("max_position_embeddings", self.max_position_embeddings, 1 << 32),
        ];
        for (name, value, limit) in sizes {
            if value == 0 || value > limit {
                return Err(Error::data(format!("{name} is {value}, which is not between 1 and {limit}")));
            }
        }
        let Self { num_attention_heads: heads, num_key_value_heads: kv_heads, head_dim, .. } = *self;
        if !heads.is_multiple_of(kv_heads) {
            return Err(Error::data(format!(
                "num_attention_heads ({heads}) is not a multiple of num_key_value_heads ({kv_heads})"
            )));
        }
        if !head_dim.is_multiple_of(2) {
            return Err(Error::data(format!("head_dim is {head_dim}: rotary embeddings need an even one")));
        }
        if !(self.rms_norm_eps > 0.0 && self.rms_norm_eps < 1.0) {
            return Err(Error::data(format!(
                "rms_norm_eps is {}, expected a small number",
                self.rms_norm_eps
            )));
        }
        self.rope.check()
    }

    /// Makes room for more tokens.
    pub(super) fn grow(&mut self, vocab_size: usize) {
        self.vocab_size = vocab_size;
        self.original.insert("vocab_size".into(), json!(vocab_size));
    }

    /// The same model with a head of its own.
    pub fn untied(&self) -> Self {
        let mut config = Self { tie_word_embeddings: false, ..self.clone() };
        config.original.insert("tie_word_embeddings".into(), json!(false));
        config
    }

    /// The model as `config.json`: every field of the original, with `dtype` set to how the weights are stored.
    pub fn to_json(&self, dtype: &str) -> Value {
        let mut fields = self.original.clone();
        fields.remove("torch_dtype");
        fields.insert("dtype".into(), json!(dtype));
        Value::Object(fields)
    }
}

impl RopeConfig {
    pub(super) fn check(&self) -> Result<()> {
        let positive = |name: &str, value: f64| {
            let fine = value.is_finite() && value > 0.0;
            if fine {
                Ok(())
            } else {
                Err(Error::data(format!("rope {name} is {value}, expected a positive number")))
            }
        };
        positive("theta", self.theta)?;
        match self.scaling {
            RopeScaling::None => Ok(()),
            RopeScaling::Linear { factor } => positive("factor", factor),
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => {
                positive("factor", factor)?;
                positive("low_freq_factor", low_freq_factor)?;
                positive("high_freq_factor - low_freq_factor", high_freq_factor - low_freq_factor)?;
                positive("original_max_position_embeddings", original_max_position_embeddings as f64)
            }
            RopeScaling::Yarn(ref yarn) => {
                positive("factor", yarn.factor)?;
                positive("beta_fast - beta_slow", yarn.beta_fast - yarn.beta_slow)?;
                positive("beta_slow", yarn.beta_slow)?;
                positive("attention_factor", yarn.attention_factor)?;
                // The ramp is drawn over the logarithm of the base.
                positive("theta - 1", self.theta - 1.0)?;
                positive("original_max_position_embeddings", yarn.original_max_position_embeddings as f64)
            }
            RopeScaling::LongRope(ref long) => {
                positive("attention_factor", long.attention_factor)?;
                let factors = [("short_factor", &long.short_factor), ("long_factor", &long.long_factor)];
                for (name, factors) in factors {
                    factors.iter().try_for_each(|&factor| positive(name, factor))?;
                }
                positive("original_max_position_embeddings", long.original_max_position_embeddings as f64)
            }
        }
    }
}
