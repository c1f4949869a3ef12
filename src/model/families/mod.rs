//! One short file a family: how it differs from Llama, in its config.json and in what it computes.

mod experts;
mod gemma;
mod gemma2;
mod gemma3;
mod granite;
mod llama;
mod mistral;
mod mixtral;
mod olmo2;
mod phi3;
mod qwen2;
mod qwen3;
mod qwen3_moe;
mod smollm3;
mod windows;

use serde_json::{Map, Value};

use super::hf_fields::{Fields, required};
use super::{Architecture, DecoderSpec, ModelConfig, RopeConfig};
use crate::error::{Error, Result};

/// What is known of a family of models.
#[derive(Debug)]
pub struct Family {
    pub architecture: Architecture,
    /// Names of its models.
    pub name: &'static str,
    /// The class in `architectures`.
    pub class: &'static str,
    /// The name in `model_type`.
    pub model_type: &'static str,
    /// How llama.cpp stores it; none where it does not.
    pub gguf: Option<GgufLayout>,
    /// Fields of config.json that `describe` reads or that change nothing, besides those of every family.
    pub fields: &'static str,
    /// What a missing `tie_word_embeddings` means.
    pub tied_head: bool,
    /// What a user should know.
    pub notes: &'static str,
    /// Sets what differs from Llama without biases; the rope is that of `rope_theta`.
    pub(super) describe: fn(&Fields, &RopeConfig, &mut DecoderSpec) -> Result<()>,
}

/// What llama.cpp's converter makes of a family.
#[derive(Debug)]
pub struct GgufLayout {
    /// `general.architecture`
    pub architecture: &'static str,
    /// The rows of q and k are reordered for rotations of neighbouring pairs.
    pub interleaved_heads: bool,
    /// Keys of the metadata, after the architecture's name, and the fields of config.json that they stand for.
    pub fields: &'static [(&'static str, &'static str)],
    /// Adds the fields of config.json that llama.cpp knows without the file.
    pub complete: Option<fn(&mut Map<String, Value>)>,
}

impl GgufLayout {
    /// Whether a key of the metadata stands for a field.
    pub(super) fn reads(&self, key: &str) -> bool {
        self.fields.iter().any(|(known, _)| *known == key)
    }
}

/// In the order in which they are listed.
pub const ALL: [&Family; 12] = [
    &llama::FAMILY,
    &mistral::FAMILY,
    &mixtral::FAMILY,
    &qwen2::FAMILY,
    &qwen3::FAMILY,
    &qwen3_moe::FAMILY,
    &smollm3::FAMILY,
    &gemma2::FAMILY,
    &gemma3::FAMILY,
    &phi3::FAMILY,
    &granite::FAMILY,
    &olmo2::FAMILY,
];

/// The decoder of a model.
pub fn decoder(config: &ModelConfig) -> DecoderSpec {
    let (vocab, tied_head) = (config.vocab_size, config.tie_word_embeddings);
    DecoderSpec { vocab, tied_head, ..config.decoder.clone() }
}

impl Architecture {
    /// What is known of the family.
    pub fn family(self) -> &'static Family {
        ALL.into_iter().find(|family| family.architecture == self).unwrap_or(&llama::FAMILY)
    }
}

/// `attention_bias` and `mlp_bias`, as Llama means them.
fn biases(fields: &Fields, spec: &mut DecoderSpec) -> Result<()> {
    let flag = |name: &str| Ok::<_, Error>(fields.flag(name)?.unwrap_or(false));
    spec.query_key_value_bias = flag("attention_bias")?;
    spec.output_bias = spec.query_key_value_bias;
    spec.mlp_bias = flag("mlp_bias")?;
    Ok(())
}

/// Families whose head_dim is not hidden_size / heads where config.json lacks it.
fn require_head_dim(fields: &Fields) -> Result<()> {
    required("head_dim", fields.size("head_dim")?).map(|_| ())
}

/// A field that must have one value where it is set.
fn expect_text(fields: &Fields, name: &str, expected: &str) -> Result<()> {
    match fields.text(name)? {
        Some(text) if text != expected => {
            Err(Error::data(format!("the field {name} = {text:?} is not supported"))
                .hint(format!("supported: {expected:?}")))
        }
        _ => Ok(()),
    }
}
