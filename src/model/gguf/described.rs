//! A model's configuration from GGUF metadata.

use serde_json::{Map, Value, json};

use super::{GgufFile, GgufValue};
use crate::error::{Error, Result};
use crate::model::config::ModelConfig;
use crate::model::families::{Family, GgufLayout};

const LONG_FACTORS: &str = "rope_factors_long.weight";
const SHORT_FACTORS: &str = "rope_factors_short.weight";

/// A file of a family that is known.
pub(super) struct Described<'a> {
    pub file: &'a GgufFile,
    pub family: &'static Family,
    pub layout: &'static GgufLayout,
}

impl Described<'_> {
    /// Reads the metadata as the `config.json` that it was converted from.
    pub fn config(&self) -> Result<ModelConfig> {
        self.refuse_unsupported()?;
        let mut fields = Map::new();
        fields.insert("architectures".into(), json!([self.family.class]));
        fields.insert("model_type".into(), json!(self.family.model_type));
        self.sizes(&mut fields)?;
        self.rope(&mut fields)?;
        self.tokens(&mut fields);
        for (key, field) in self.layout.fields {
            if let Some(value) = self.json(key)? {
                fields.insert((*field).into(), value);
            }
        }
        self.biases(&mut fields);
        if let Some(complete) = self.layout.complete {
            complete(&mut fields);
        }
        ModelConfig::of(fields)
    }

    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.layout.architecture)
    }

    fn size(&self, name: &str) -> Result<Option<usize>> {
        self.file.size(&self.key(name))
    }

    fn required_size(&self, name: &str) -> Result<usize> {
        self.size(name)?.ok_or_else(|| Error::data(format!("the metadata lacks {}", self.key(name))))
    }

    fn number(&self, name: &str) -> Result<Option<f64>> {
        self.file.number(&self.key(name))
    }

    fn required_number(&self, name: &str) -> Result<f64> {
        self.number(name)?.ok_or_else(|| Error::data(format!("the metadata lacks {}", self.key(name))))
    }

    fn json(&self, name: &str) -> Result<Option<Value>> {
        Ok(match self.file.value(&self.key(name)) {
            Some(GgufValue::Integer(value)) => Some(json!(value)),
            _ => self.number(name)?.map(|value| json!(value)),
        })
    }

    fn sizes(&self, fields: &mut Map<String, Value>) -> Result<()> {
        let tensors = &self.file.tensors;
        let vocab = tensors.get("token_embd.weight").and_then(|tensor| tensor.shape.first().copied());
        let vocab = vocab.ok_or_else(|| Error::data("the file has no tensor token_embd.weight"))?;
        let heads = self.required_size("attention.head_count")?;
        let hidden = self.required_size("embedding_length")?;
        let head_dim = match self.size("attention.key_length")? {
            Some(head_dim) => head_dim,
            None => hidden.checked_div(heads).unwrap_or(0),
        };
        let rotated = self.size("rope.dimension_count")?.unwrap_or(head_dim);
        let partial = self.family.fields.contains("partial_rotary_factor");
        if rotated != head_dim && !partial {
            return Err(Error::data(format!("only {rotated} of {head_dim} head dimensions are rotated")));
        }
        if partial {
            let share = rotated as f64 / head_dim.max(1) as f64;
            fields.insert("partial_rotary_factor".into(), json!(share));
        }
        let sizes = [
            ("vocab_size", vocab),
            ("hidden_size", hidden),
            ("intermediate_size", self.required_size("feed_forward_length")?),
            ("num_hidden_layers", self.required_size("block_count")?),
            ("num_attention_heads", heads),
            ("num_key_value_heads", self.size("attention.head_count_kv")?.unwrap_or(heads)),
            ("head_dim", head_dim),
            ("max_position_embeddings", self.required_size("context_length")?),
        ];
        fields.extend(sizes.map(|(name, size)| (name.to_owned(), json!(size))));
        let epsilon = self.required_number("attention.layer_norm_rms_epsilon")?;
        fields.insert("rms_norm_eps".into(), json!(epsilon));
        fields.insert("initializer_range".into(), json!(0.02));
        fields.insert("tie_word_embeddings".into(), json!(!tensors.contains_key("output.weight")));
        Ok(())
    }

    fn tokens(&self, fields: &mut Map<String, Value>) {
        for name in ["bos", "eos", "padding"] {
            let id = self.file.token_id(&format!("tokenizer.ggml.{name}_token_id"));
            let name = if name == "padding" { "pad" } else { name };
            fields.insert(format!("{name}_token_id"), json!(id));
        }
    }

    /// Biases show in the tensors only.
    fn biases(&self, fields: &mut Map<String, Value>) {
        for (tensor, field) in [("attn_output", "attention_bias"), ("ffn_gate", "mlp_bias")] {
            if self.family.fields.split_whitespace().any(|known| known == field) {
                let bias = self.file.tensors.contains_key(&format!("blk.0.{tensor}.bias"));
                fields.insert(field.into(), json!(bias));
            }
        }
    }

    /// Both spellings, for readers from before `rope_parameters`.
    fn rope(&self, fields: &mut Map<String, Value>) -> Result<()> {
        // llama.cpp's default: files of models with theta 10000 may leave it out.
        let theta = self.number("rope.freq_base")?.unwrap_or(10_000.0);
        let scaling = self.rope_scaling(theta)?;
        let mut parameters = match &scaling {
            Value::Object(fields) => fields.clone(),
            _ => Map::from_iter([("rope_type".to_owned(), json!("default"))]),
        };
        // transformers reads it beside the scaling only, in this family.
        let original = parameters.get("original_max_position_embeddings");
        if let Some(original) = original.filter(|_| self.family.fields.contains("original_max_position")) {
            fields.insert("original_max_position_embeddings".into(), original.clone());
        }
        parameters.insert("rope_theta".into(), json!(theta));
        fields.insert("rope_parameters".into(), Value::Object(parameters));
        fields.insert("rope_theta".into(), json!(theta));
        fields.insert("rope_scaling".into(), scaling);
        Ok(())
    }

    fn refuse_unsupported(&self) -> Result<()> {
        let window = "attention.sliding_window";
        let unsupported = [
            ("expert_count", "mixture-of-experts models are not supported"),
            (window, "sliding-window attention is not supported in files of this architecture"),
        ];
        for (name, hint) in unsupported {
            let read = self.layout.reads(name);
            if !read && self.size(name)?.is_some_and(|value| value != 0) {
                return Err(Error::data(format!("{} is set", self.key(name))).hint(hint));
            }
        }
        if self.file.size("split.count")?.is_some_and(|parts| parts > 1) {
            return Err(Error::data("the file is one of several parts")
                .hint("join them with llama-gguf-split --merge"));
        }
        Ok(())
    }

    /// As `rope_scaling` in config.json.
    fn rope_scaling(&self, theta: f64) -> Result<Value> {
        if self.file.tensors.contains_key("rope_freqs.weight") {
            return self.llama3_scaling(theta);
        }
        if self.file.tensors.contains_key(LONG_FACTORS) {
            return self.longrope();
        }
        let kind = self.file.text(&self.key("rope.scaling.type"));
        match kind {
            None | Some("none") => Ok(Value::Null),
            Some("linear") => {
                Ok(json!({ "rope_type": "linear", "factor": self.required_number("rope.scaling.factor")? }))
            }
            Some("yarn") => {
                let original = self.required_size("rope.scaling.original_context_length")?;
                let mut yarn = json!({
                    "rope_type": "yarn",
                    "factor": self.required_number("rope.scaling.factor")?,
                    "original_max_position_embeddings": original,
                });
                if self.number("rope.scaling.attn_factor")?.is_some_and(|factor| factor != 1.0) {
                    return Err(Error::data(format!("{} is set", self.key("rope.scaling.attn_factor")))
                        .hint("use the model's original folder instead of the GGUF file"));
                }
                for (key, field) in [("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow")] {
                    if let Some(value) = self.number(&format!("rope.scaling.{key}"))? {
                        yarn[field] = json!(value);
                    }
                }
                Ok(yarn)
            }
            Some(other) => Err(Error::data(format!("the rope scaling {other} is not supported"))
                .hint("supported: none, linear, yarn, and the table of Llama 3.1")),
        }
    }

    fn longrope(&self) -> Result<Value> {
        if !self.file.tensors.contains_key(SHORT_FACTORS) {
            return Err(Error::data(format!("the file has {LONG_FACTORS} without {SHORT_FACTORS}")));
        }
        // f32 on disk: the shortest decimal is what config.json had.
        let factors = |name: &str| -> Result<Vec<f64>> {
            let values = self.file.read_f32(name)?.into_iter();
            Ok(values.filter_map(|value| value.to_string().parse().ok()).collect())
        };
        Ok(json!({
            "rope_type": "longrope",
            "short_factor": factors(SHORT_FACTORS)?,
            "long_factor": factors(LONG_FACTORS)?,
            "original_max_position_embeddings": self.required_size("rope.scaling.original_context_length")?,
            "attention_factor": self.number("rope.scaling.attn_factor")?,
        }))
    }

    /// GGUF keeps Llama 3.1's scaling as a table of divisors, one per frequency, of which the last is the factor. The
    /// other constants are those of all published models (1, 4, 8192), checked against the table.
    fn llama3_scaling(&self, theta: f64) -> Result<Value> {
        let table = self.file.read_f32("rope_freqs.weight")?;
        let pairs = table.len();
        let factor = f64::from(table.last().copied().unwrap_or(0.0));
        let (low, high, original) = (1.0, 4.0, 8192_usize);
        let expected = (0..pairs).map(|index| {
            let wavelength = std::f64::consts::TAU * theta.powf(index as f64 / pairs as f64);
            let smooth = (original as f64 / wavelength - low) / (high - low);
            1.0 / ((1.0 - smooth.clamp(0.0, 1.0)) / factor + smooth.clamp(0.0, 1.0))
        });
        let fits =
            expected.zip(&table).all(|(expected, &found)| (expected / f64::from(found) - 1.0).abs() < 1e-3);
        if !fits || pairs == 0 {
            return Err(Error::data("the table rope_freqs.weight is not that of Llama 3.1")
                .hint("use the model's original folder instead of the GGUF file"));
        }
        Ok(json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low,
            "high_freq_factor": high,
            "original_max_position_embeddings": original,
        }))
    }
}
