//! Special tokens, as the files beside a Hugging Face tokenizer name them.

use crate::error::{Error, Result, ResultExt};
use serde_json::Value;
use std::path::Path;

/// The special tokens of a tokenizer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    pub bos: Option<String>,
    pub eos: Option<String>,
    pub pad: Option<String>,
    pub unk: Option<String>,
    /// Token ids that end an answer, beside `eos`.
    pub end_of_sequence_ids: Vec<u32>,
    /// Whether plain text starts with `bos`; `None` leaves it to the tokenizer's own post-processor.
    pub add_bos: Option<bool>,
}

impl SpecialTokens {
    /// Reads `tokenizer_config.json`, `special_tokens_map.json`, `generation_config.json` and `config.json`, each of
    /// which may be missing; the earlier file wins.
    ///
    /// # Errors
    /// A file cannot be read or is not JSON.
    pub(crate) fn from_folder(folder: &Path) -> Result<Self> {
        let mut special = Self::default();
        for name in ["tokenizer_config.json", "special_tokens_map.json"] {
            let Some(file) = read_json(&folder.join(name))? else { continue };
            for (slot, key) in [
                (&mut special.bos, "bos_token"),
                (&mut special.eos, "eos_token"),
                (&mut special.pad, "pad_token"),
                (&mut special.unk, "unk_token"),
            ] {
                if slot.is_none() {
                    *slot = token_text(file.get(key));
                }
            }
            special.add_bos = special.add_bos.or_else(|| file.get("add_bos_token").and_then(Value::as_bool));
        }
        for name in ["generation_config.json", "config.json"] {
            let Some(file) = read_json(&folder.join(name))? else { continue };
            special.end_of_sequence_ids = token_ids(file.get("eos_token_id"));
            if !special.end_of_sequence_ids.is_empty() {
                break;
            }
        }
        Ok(special)
    }

    /// The names under which templates find the tokens.
    pub(crate) fn template_variables(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("bos_token", &self.bos),
            ("eos_token", &self.eos),
            ("pad_token", &self.pad),
            ("unk_token", &self.unk),
        ]
        .into_iter()
        .filter_map(|(name, token)| token.as_deref().map(|token| (name, token)))
    }
}

/// A token is written as a string or as an object with `content`.
fn token_text(value: Option<&Value>) -> Option<String> {
    let value = value?;
    value.as_str().or_else(|| value.get("content").and_then(Value::as_str)).map(str::to_owned)
}

fn token_ids(value: Option<&Value>) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Some(Value::Array(ids)) => ids.iter().filter_map(id).collect(),
        Some(value) => id(value).into_iter().collect(),
        None => Vec::new(),
    }
}

/// Reads a JSON file; `None` where there is no such file.
pub(crate) fn read_json(path: &Path) -> Result<Option<Value>> {
    let Some(text) = read_optional(path)? else { return Ok(None) };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|error| Error::data(format!("not valid JSON: {error}")))
        .context(|| format!("while reading {}", path.display()))
}

/// Reads a text file; `None` where there is no such file.
pub(crate) fn read_optional(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context(|| format!("while reading {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_tokens_as_text_or_object() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write(
            "tokenizer_config.json",
            r#"{"bos_token": null, "eos_token": {"content": "</s>"}, "add_bos_token": true}"#,
        );
        write("special_tokens_map.json", r#"{"bos_token": "<s>", "eos_token": "other"}"#);
        write("generation_config.json", r#"{"eos_token_id": [2, 7]}"#);
        write("config.json", r#"{"eos_token_id": 9}"#);
        let special = SpecialTokens::from_folder(folder.path()).unwrap();
        assert_eq!((special.bos.as_deref(), special.eos.as_deref()), (Some("<s>"), Some("</s>")));
        assert_eq!((special.end_of_sequence_ids, special.add_bos), (vec![2, 7], Some(true)));

        write("config.json", "{");
        std::fs::remove_file(folder.path().join("generation_config.json")).unwrap();
        let error = SpecialTokens::from_folder(folder.path()).unwrap_err().to_string();
        assert!(error.contains("config.json: not valid JSON"), "{error}");
    }
}
