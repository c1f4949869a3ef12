//! A model's configuration from GGUF metadata.

use serde_json::Map;

use super::{GgufFile, GgufValue};
use crate::error::{Error, Result};
use crate::model::config::{Architecture, ModelConfig, RopeConfig, RopeScaling};

impl GgufFile {
    pub(super) fn value(&self, key: &str) -> Option<&GgufValue> {
        self.metadata.get(key)
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match self.value(key) {
            Some(GgufValue::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        match self.value(key) {
            Some(GgufValue::Bool(value)) => Some(*value),
            _ => None,
        }
    }

    pub(super) fn token_id(&self, key: &str) -> Option<u32> {
        match self.value(key) {
            Some(GgufValue::Integer(id)) => u32::try_from(*id).ok(),
            _ => None,
        }
    }

    fn size(&self, key: &str) -> Result<Option<usize>> {
        match self.value(key) {
            None => Ok(None),
            Some(GgufValue::Integer(value)) if *value >= 0 => Ok(Some(*value as usize)),
            Some(other) => Err(Error::data(format!("{key} is {other:?}, expected a size"))),
        }
    }

    fn required_size(&self, key: &str) -> Result<usize> {
        self.size(key)?.ok_or_else(|| Error::data(format!("the metadata lacks {key}")))
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        match self.value(key) {
            None => Ok(None),
            // f32 on disk: the shortest decimal that rounds to it is what the model's author wrote (1e-5, not 9.9999997e-6).
            Some(GgufValue::Float(value)) => Ok((*value as f32).to_string().parse().ok()),
            Some(other) => Err(Error::data(format!("{key} is {other:?}, expected a number"))),
        }
    }

    /// The configuration that the metadata describes; another architecture or an unsupported setting is refused.
    pub fn config(&self) -> Result<ModelConfig> {
        let architecture = self.text("general.architecture").unwrap_or("missing");
        if architecture != "llama" {
            return Err(Error::data(format!("the architecture {architecture} is not supported"))
                .hint("supported GGUF architectures: llama"));
        }
        self.refuse_unsupported()?;
        let heads = self.required_size("llama.attention.head_count")?;
        let hidden_size = self.required_size("llama.embedding_length")?;
        let rotated = self.size("llama.rope.dimension_count")?;
        let head_dim = match self.size("llama.attention.key_length")?.or(rotated) {
            Some(head_dim) => head_dim,
            None => hidden_size.checked_div(heads).unwrap_or(0),
        };
        if rotated.is_some_and(|rotated| rotated != head_dim) {
            return Err(Error::data(format!("only {rotated:?} of {head_dim} head dimensions are rotated")));
        }
        let vocab_size =
            self.tensors.get("token_embd.weight").and_then(|tensor| tensor.shape.first().copied());
        let epsilon = self.number("llama.attention.layer_norm_rms_epsilon")?;
        let config = ModelConfig {
            architecture: Architecture::Llama,
            vocab_size: vocab_size.ok_or_else(|| Error::data("the file has no tensor token_embd.weight"))?,
            hidden_size,
            intermediate_size: self.required_size("llama.feed_forward_length")?,
            num_hidden_layers: self.required_size("llama.block_count")?,
            num_attention_heads: heads,
            num_key_value_heads: self.size("llama.attention.head_count_kv")?.unwrap_or(heads),
            head_dim,
            rms_norm_eps: epsilon
                .ok_or_else(|| Error::data("the metadata lacks llama.attention.layer_norm_rms_epsilon"))?,
            rope: RopeConfig {
                // llama.cpp's default: files of models with theta 10000 may leave it out.
                theta: self.number("llama.rope.freq_base")?.unwrap_or(10_000.0),
                scaling: self.rope_scaling(head_dim)?,
            },
            tie_word_embeddings: !self.tensors.contains_key("output.weight"),
            attention_bias: self.tensors.contains_key("blk.0.attn_q.bias"),
            mlp_bias: self.tensors.contains_key("blk.0.ffn_gate.bias"),
            max_position_embeddings: self.required_size("llama.context_length")?,
            bos_token_id: self.token_id("tokenizer.ggml.bos_token_id"),
            eos_token_ids: self.token_id("tokenizer.ggml.eos_token_id").into_iter().collect(),
            pad_token_id: self.token_id("tokenizer.ggml.padding_token_id"),
            original: Map::new(),
        };
        config.check()?;
        Ok(config)
    }

    fn refuse_unsupported(&self) -> Result<()> {
        let unsupported = [
            ("llama.expert_count", "mixture-of-experts models are not supported"),
            ("llama.attention.sliding_window", "sliding-window attention is not supported"),
        ];
        for (key, hint) in unsupported {
            if self.size(key)?.is_some_and(|value| value != 0) {
                return Err(Error::data(format!("{key} is set")).hint(hint));
            }
        }
        if self.size("split.count")?.is_some_and(|parts| parts > 1) {
            return Err(Error::data("the file is one of several parts")
                .hint("join them with llama-gguf-split --merge"));
        }
        Ok(())
    }

    fn rope_scaling(&self, head_dim: usize) -> Result<RopeScaling> {
        if self.tensors.contains_key("rope_freqs.weight") {
            return self.llama3_scaling(head_dim);
        }
        match self.text("llama.rope.scaling.type") {
            None | Some("none") => Ok(RopeScaling::None),
            Some("linear") => {
                let factor = self.number("llama.rope.scaling.factor")?;
                let factor =
                    factor.ok_or_else(|| Error::data("the metadata lacks llama.rope.scaling.factor"))?;
                Ok(RopeScaling::Linear { factor })
            }
            Some(other) => Err(Error::data(format!("the rope scaling {other} is not supported"))
                .hint("supported: none, linear, and the table of Llama 3.1")),
        }
    }

    /// GGUF keeps Llama 3.1's scaling as a table of divisors, one per frequency, of which the last is the factor. The
    /// other constants are those of all published models (1, 4, 8192), checked against the table.
    fn llama3_scaling(&self, head_dim: usize) -> Result<RopeScaling> {
        let table = self.read_f32("rope_freqs.weight")?;
        let theta = self.number("llama.rope.freq_base")?.unwrap_or(10_000.0);
        let factor = f64::from(table.last().copied().unwrap_or(0.0));
        let (low, high, original) = (1.0, 4.0, 8192_usize);
        let expected = (0..head_dim / 2).map(|index| {
            let wavelength = std::f64::consts::TAU * theta.powf(2.0 * index as f64 / head_dim as f64);
            let smooth = (original as f64 / wavelength - low) / (high - low);
            1.0 / ((1.0 - smooth.clamp(0.0, 1.0)) / factor + smooth.clamp(0.0, 1.0))
        });
        let fits = table.len() == head_dim / 2
            && expected
                .zip(&table)
                .all(|(expected, &found)| (expected / f64::from(found) - 1.0).abs() < 1e-3);
        if !fits {
            return Err(Error::data("the table rope_freqs.weight is not that of Llama 3.1")
                .hint("use the model's original folder instead of the GGUF file"));
        }
        Ok(RopeScaling::Llama3 {
            factor,
            low_freq_factor: low,
            high_freq_factor: high,
            original_max_position_embeddings: original,
        })
    }
}
