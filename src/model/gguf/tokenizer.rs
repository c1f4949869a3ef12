//! The tokenizer inside a GGUF file.
//!
//! A byte-level BPE is rebuilt as the `tokenizer.json` that transformers would have written, and then loaded like one,
//! so that a GGUF file and its original folder tokenize alike.

use serde_json::{Map, Value, json};
use tokenizers::Tokenizer;

use super::{GgufFile, GgufValue};
use crate::error::{Error, Result};

/// ggml's token types: a control token is never part of ordinary text, a user-defined one is matched as a whole.
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

const LLAMA3_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A special token: its text and its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecialToken {
    pub text: String,
    pub id: u32,
}

/// What a GGUF file says about turning text into tokens.
#[derive(Debug, Clone)]
pub struct GgufTokenizer {
    pub tokenizer: Tokenizer,
    /// The text of the equivalent `tokenizer.json`.
    pub tokenizer_json: String,
    pub chat_template: Option<String>,
    pub bos: Option<SpecialToken>,
    pub eos: Option<SpecialToken>,
    pub pad: Option<SpecialToken>,
}

impl GgufTokenizer {
    /// Rebuilds the tokenizer; a kind that is not a byte-level BPE is refused by name.
    pub fn from_file(file: &GgufFile) -> Result<Self> {
        let model = file.text("tokenizer.ggml.model").unwrap_or("missing");
        if model != "gpt2" {
            return Err(Error::data(format!("the tokenizer model {model} is not supported"))
                .hint("supported: gpt2 (byte-level BPE); or use the model's original folder, which has tokenizer.json"));
        }
        let tokens = texts(file, "tokenizer.ggml.tokens")?;
        let special = |key: &str| {
            let id = file.token_id(key)?;
            Some(SpecialToken { text: tokens.get(id as usize)?.clone(), id })
        };
        let bos = special("tokenizer.ggml.bos_token_id");
        let tokenizer_json = describe(file, tokens, bos.as_ref())?.to_string();
        let tokenizer = Tokenizer::from_bytes(&tokenizer_json)
            .map_err(|error| Error::data(format!("the tokenizer cannot be rebuilt: {error}")))?;
        Ok(Self {
            tokenizer,
            tokenizer_json,
            chat_template: file.text("tokenizer.chat_template").map(str::to_owned),
            bos,
            eos: special("tokenizer.ggml.eos_token_id"),
            pad: special("tokenizer.ggml.padding_token_id"),
        })
    }

    /// The `tokenizer_config.json` that belongs to [`tokenizer_json`](Self::tokenizer_json).
    pub fn config_json(&self) -> Value {
        let text = |token: &Option<SpecialToken>| token.as_ref().map(|token| token.text.clone());
        json!({
            "bos_token": text(&self.bos),
            "chat_template": self.chat_template,
            "clean_up_tokenization_spaces": false,
            "eos_token": text(&self.eos),
            "pad_token": text(&self.pad),
            "tokenizer_class": "PreTrainedTokenizerFast",
        })
    }
}

fn texts<'a>(file: &'a GgufFile, key: &str) -> Result<&'a [String]> {
    match file.value(key) {
        Some(GgufValue::Texts(texts)) => Ok(texts),
        _ => Err(Error::data(format!("the metadata lacks the list {key}"))),
    }
}

fn describe(file: &GgufFile, tokens: &[String], bos: Option<&SpecialToken>) -> Result<Value> {
    let kind = file.text("tokenizer.ggml.pre").unwrap_or("default");
    let (normalizer, pre_tokenizer) = pre_tokenizer(kind)?;
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
    let adds_bos = file.flag("tokenizer.ggml.add_bos_token").unwrap_or(kind == "llama-bpe");
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(file, tokens),
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": bos.filter(|_| adds_bos).map(bos_template),
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            // Llama 3 takes a word that is a token as a whole, whatever the merges say.
            "ignore_merges": kind == "llama-bpe",
            "vocab": vocabulary,
            "merges": merges,
        },
    }))
}

fn added_tokens(file: &GgufFile, tokens: &[String]) -> Vec<Value> {
    let Some(GgufValue::Integers(kinds)) = file.value("tokenizer.ggml.token_type") else { return Vec::new() };
    let added =
        tokens.iter().zip(kinds).enumerate().filter(|(_, (_, kind))| [CONTROL, USER_DEFINED].contains(kind));
    added
        .map(|(id, (token, &kind))| {
            json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": kind == CONTROL,
            })
        })
        .collect()
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
        "llama-bpe" | "llama3" | "dbrx" | "smaug-bpe" => Ok((Value::Null, split(LLAMA3_PATTERN))),
        "qwen2" => Ok((json!({ "type": "NFC" }), split(QWEN2_PATTERN))),
        other => Err(Error::data(format!("the pre-tokenizer {other} is not supported")).hint(
            "supported: smollm, starcoder, gpt-2, llama-bpe, dbrx, smaug-bpe, qwen2; or use the model's original folder",
        )),
    }
}

fn bos_template(bos: &SpecialToken) -> Value {
    let token = json!({ "SpecialToken": { "id": bos.text, "type_id": 0 } });
    let sequence = |id: &str| json!({ "Sequence": { "id": id, "type_id": 0 } });
    let mut special_tokens = Map::new();
    special_tokens.insert(bos.text.clone(), json!({ "id": bos.text, "ids": [bos.id], "tokens": [bos.text] }));
    json!({
        "type": "TemplateProcessing",
        "single": [token, sequence("A")],
        "pair": [token, sequence("A"), sequence("B")],
        "special_tokens": special_tokens,
    })
}
