//! Reading `config.json` as transformers writes it, in its present and its older forms.

use std::path::Path;

use serde_json::{Map, Value};

use super::config::ModelConfig;
use super::families::{self, Family};
use super::hf_fields::{Fields, required};
use super::hf_rope;
use super::spec::DecoderSpec;
use crate::error::{Error, Result, ResultExt};

/// Fields that do not change what the model computes, beside those that the parser reads.
const HARMLESS: &str = "architectures model_type vocab_size hidden_size intermediate_size num_hidden_layers \
    num_attention_heads num_key_value_heads head_dim rms_norm_eps rope_theta rope_scaling rope_parameters \
    tie_word_embeddings max_position_embeddings bos_token_id eos_token_id pad_token_id \
    initializer_range use_cache torch_dtype dtype transformers_version is_llama_config name_or_path \
    unk_token_id sep_token_id decoder_start_token_id output_attentions output_hidden_states return_dict torchscript \
    id2label label2id problem_type task_specific_params finetuning_task tokenizer_class prefix is_encoder_decoder \
    is_decoder add_cross_attention chunk_size_feed_forward use_return_dict do_sample temperature top_k top_p \
    max_length min_length num_beams repetition_penalty length_penalty early_stopping transformers.js_config \
    unsloth_version unsloth_fixed model_max_length max_sequence_length ffn_dim_multiplier";

/// Applied in training only, where lazytune leaves it out and says so.
const DROPOUT: &str = "attention_dropout";

/// Fields of which one value means "nothing special", which every absent, null, false, zero or empty value is too.
const NEUTRAL: [(&str, &str); 7] = [
    ("pretraining_tp", "1.0"),
    ("partial_rotary_factor", "1.0"),
    ("embedding_multiplier", "1.0"),
    ("residual_multiplier", "1.0"),
    ("logits_scaling", "1.0"),
    ("hidden_act", "silu"),
    ("hidden_activation", "silu"),
];

impl ModelConfig {
    /// Reads the `config.json` in `folder`.
    pub fn read_folder(folder: &Path) -> Result<Self> {
        Self::read_file(&folder.join("config.json"))
    }

    /// Reads a `config.json`; an unknown architecture or an unsupported field is refused by name.
    pub fn read_file(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).map_err(|error| {
            Error::data(format!("cannot read {}: {error}", path.display()))
                .hint("a model folder holds config.json, tokenizer.json and *.safetensors")
        })?;
        Self::parse(&text).context(|| format!("reading {}", path.display()))
    }

    /// Parses the text of a `config.json`.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let original: Map<String, Value> = serde_json::from_slice(text)
            .map_err(|error| Error::data(format!("not a valid JSON object: {error}")))?;
        Self::of(original)
    }

    /// The configuration that the fields of a `config.json` describe.
    pub(super) fn of(original: Map<String, Value>) -> Result<Self> {
        let fields = Fields(&original);
        let family = family(&fields)?;
        refuse_unsupported(&original, family)?;
        let size = |name: &str| required(name, fields.size(name)?);
        let heads = size("num_attention_heads")?;
        let hidden_size = size("hidden_size")?;
        let mut config = Self {
            architecture: family.architecture,
            vocab_size: size("vocab_size")?,
            hidden_size,
            intermediate_size: size("intermediate_size")?,
            num_hidden_layers: size("num_hidden_layers")?,
            num_attention_heads: heads,
            num_key_value_heads: fields.size("num_key_value_heads")?.unwrap_or(heads),
            head_dim: head_dim(&fields, hidden_size, heads)?,
            rms_norm_eps: required("rms_norm_eps", fields.number("rms_norm_eps")?)?,
            rope: hf_rope::main(&fields)?,
            tie_word_embeddings: fields.flag("tie_word_embeddings")?.unwrap_or(family.tied_head),
            max_position_embeddings: size("max_position_embeddings")?,
            bos_token_id: fields.token_ids("bos_token_id")?.first().copied(),
            eos_token_ids: fields.token_ids("eos_token_id")?,
            pad_token_id: fields.token_ids("pad_token_id")?.first().copied(),
            decoder: DecoderSpec::default(),
            original: Map::new(),
        };
        config.check()?;
        let share = hf_rope::partial_rotary_factor(&fields)?;
        hf_rope::check_factors(&config.rope, (config.head_dim as f64 * share) as usize)?;
        config.decoder = DecoderSpec::plain(&config);
        (family.describe)(&fields, &config.rope, &mut config.decoder)?;
        config.decoder.check()?;
        config.original = original;
        Ok(config)
    }
}

impl ModelConfig {
    /// What the model's own training did and lazytune's does not.
    pub fn notices(&self) -> Vec<String> {
        let share = self.original.get(DROPOUT).and_then(Value::as_f64).filter(|&share| share > 0.0);
        let told = share.map(|share| {
            format!(
                "the model's {DROPOUT} = {share} is not applied: attention is trained without dropout \
                 (adapter.dropout is that of the adapter)"
            )
        });
        told.into_iter().collect()
    }
}

fn family(fields: &Fields) -> Result<&'static Family> {
    let classes = fields.get("architectures").and_then(Value::as_array);
    let class = classes.and_then(|classes| classes.first()).and_then(Value::as_str);
    let model_type = fields.text("model_type")?;
    let by_class = class.and_then(|class| families::ALL.iter().find(|family| family.class == class));
    let by_type = model_type.and_then(|name| families::ALL.iter().find(|family| family.model_type == name));
    match (by_class, by_type) {
        (Some(family), _) if model_type.is_none_or(|name| name == family.model_type) => Ok(family),
        (None, Some(family)) if class.is_none() => Ok(family),
        (known, _) => {
            // A known class with another model_type is not what it says.
            let contradicted = model_type.filter(|_| known.is_some());
            let name = contradicted.or(class).or(model_type).unwrap_or("missing");
            let classes: Vec<_> = families::ALL.iter().map(|family| family.class).collect();
            Err(Error::data(format!("the architecture {name} is not supported"))
                .hint(format!("supported: {} (see lazytune models)", classes.join(", "))))
        }
    }
}

fn refuse_unsupported(original: &Map<String, Value>, family: &Family) -> Result<()> {
    let listed = |list: &str, name: &str| list.split_whitespace().any(|known| known == name);
    for (name, value) in original {
        if listed(family.fields, name) {
            continue;
        }
        let neutral = NEUTRAL.iter().find(|(key, _)| key == name);
        let nothing = match value {
            Value::Null | Value::Bool(false) => true,
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.iter().all(|item| item == "full_attention"),
            Value::Object(fields) => fields.is_empty(),
            Value::Bool(true) => false,
        };
        let fine = match neutral {
            None if name == DROPOUT => {
                value.as_f64().is_some_and(|share| (0.0..1.0).contains(&share)) || nothing
            }
            Some((_, text)) => {
                let is_number = value.as_f64().is_some_and(|number| text.parse() == Ok(number));
                nothing || is_number || value.as_str() == Some(text)
            }
            None => nothing || name.starts_with('_') || listed(HARMLESS, name),
        };
        if !fine {
            return Err(Error::data(format!("the field {name} = {} is not supported", shortened(value)))
                .hint("if it does not change what the model computes, remove it from config.json"));
        }
    }
    Ok(())
}

fn shortened(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn head_dim(fields: &Fields, hidden_size: usize, heads: usize) -> Result<usize> {
    match fields.size("head_dim")? {
        Some(head_dim) => Ok(head_dim),
        None if heads != 0 && hidden_size.is_multiple_of(heads) => Ok(hidden_size / heads),
        None => Err(Error::data(format!(
            "hidden_size ({hidden_size}) is not a multiple of num_attention_heads ({heads}), and head_dim is missing"
        ))),
    }
}

#[cfg(test)]
#[path = "hf_config_tests.rs"]
mod tests;
