//! Byte-level BPE (`tokenizer.ggml.model = "gpt2"`): the merges are in the file, the pre-tokenizer is named there.

use serde_json::{Map, Value, json};

use super::GgufFile;
use super::tokenizer::texts;
use crate::error::{Error, Result};

const LLAMA3_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN_PATTERN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O_PATTERN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The parts of `tokenizer.json` that depend on the kind of tokenizer.
pub(super) fn describe(file: &GgufFile, tokens: &[String]) -> Result<Map<String, Value>> {
    let (normalizer, pre_tokenizer) = pre_tokenizer(kind(file))?;
    let mut vocabulary = Map::new();
    for (id, token) in tokens.iter().enumerate() {
        // A repeated text keeps its first id, as in llama.cpp.
        vocabulary.entry(token.as_str()).or_insert_with(|| json!(id));
    }
    let merges: Vec<_> =
        texts(file, "tokenizer.ggml.merges")?.iter().map(|merge| merge.split_once(' ')).collect();
    if let Some(at) = merges.iter().position(Option::is_none) {
        return Err(Error::data(format!("tokenizer.ggml.merges: entry {at} is not two tokens")));
    }
    let mut parts = Map::new();
    parts.insert("normalizer".into(), normalizer);
    parts.insert("pre_tokenizer".into(), pre_tokenizer);
    let decoder =
        json!({ "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true });
    parts.insert("decoder".into(), decoder);
    let model = json!({
        "type": "BPE",
        "dropout": null,
        "unk_token": null,
        "continuing_subword_prefix": null,
        "end_of_word_suffix": null,
        "fuse_unk": false,
        "byte_fallback": false,
        // Llama 3 takes a word that is a token as a whole, whatever the merges say.
        "ignore_merges": keeps_whole_words(kind(file)),
        "vocab": vocabulary,
        "merges": merges,
    });
    parts.insert("model".into(), model);
    Ok(parts)
}

/// Whether text begins with bos where the file does not say.
pub(super) fn adds_bos(file: &GgufFile) -> bool {
    keeps_whole_words(kind(file))
}

fn kind(file: &GgufFile) -> &str {
    file.text("tokenizer.ggml.pre").unwrap_or("default")
}

fn keeps_whole_words(kind: &str) -> bool {
    matches!(kind, "llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "tekken")
}

/// Normalizer and pre-tokenizer by the name that llama.cpp's converter gives to each family.
fn pre_tokenizer(kind: &str) -> Result<(Value, Value)> {
    let byte_level = |use_regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex });
    let split = |pattern: &str| {
        let split = json!({
            "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false,
        });
        json!({ "type": "Sequence", "pretokenizers": [split, byte_level(false)] })
    };
    match kind {
        "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" => {
            let digits = json!({ "type": "Digits", "individual_digits": true });
            Ok((Value::Null, json!({ "type": "Sequence", "pretokenizers": [digits, byte_level(true)] })))
        }
        "default" | "gpt-2" | "gpt2" => Ok((Value::Null, byte_level(true))),
        "llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "dbrx" | "smaug-bpe" => {
            Ok((Value::Null, split(LLAMA3_PATTERN)))
        }
        "qwen2" | "deepseek-r1-qwen" => Ok((json!({ "type": "NFC" }), split(QWEN2_PATTERN))),
        "tekken" => Ok((Value::Null, split(TEKKEN_PATTERN))),
        "gpt-4o" => Ok((Value::Null, split(GPT4O_PATTERN))),
        other => Err(Error::data(format!("the pre-tokenizer {other} is not supported")).hint(
            "supported: smollm, starcoder, refact, gpt-2, llama-bpe, dbrx, smaug-bpe, qwen2, tekken, gpt-4o; or use \
             the model's original folder",
        )),
    }
}
