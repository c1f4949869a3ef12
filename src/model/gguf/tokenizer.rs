//! The tokenizer inside a GGUF file.
//!
//! It is rebuilt as the `tokenizer.json` that transformers would have written, and then loaded like one, so that a GGUF
//! file and its original folder tokenize alike.

use serde_json::{Map, Value, json};
use tokenizers::Tokenizer;

use super::{GgufFile, GgufValue, byte_level, sentence_piece};
use crate::error::{Error, Result};

/// ggml's token types: a control token is never part of ordinary text, a user-defined one is matched as a whole.
pub(super) const NORMAL: i64 = 1;
pub(super) const UNKNOWN: i64 = 2;
pub(super) const CONTROL: i64 = 3;
pub(super) const USER_DEFINED: i64 = 4;
pub(super) const UNUSED: i64 = 5;
pub(super) const BYTE: i64 = 6;

/// Control tokens that end a turn, which llama.cpp too knows by their text.
const TURN_ENDS: [&str; 5] = ["<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>"];

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
    pub unknown: Option<SpecialToken>,
    /// Every token that ends an answer, `eos` first.
    pub ends: Vec<u32>,
}

/// The two kinds of tokenizers that models of the supported families have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    ByteLevel,
    SentencePiece,
}

impl GgufTokenizer {
    /// Rebuilds the tokenizer; another kind than byte-level BPE and SentencePiece is refused by name.
    pub fn from_file(file: &GgufFile) -> Result<Self> {
        let kind = match file.text("tokenizer.ggml.model").unwrap_or("missing") {
            "gpt2" => Kind::ByteLevel,
            "llama" => Kind::SentencePiece,
            other => {
                let message = format!("the tokenizer model {other} is not supported");
                return Err(Error::data(message).hint(
                    "supported: gpt2 (byte-level BPE), llama (SentencePiece); or use the model's original folder, \
                     which has tokenizer.json",
                ));
            }
        };
        let tokens = texts(file, "tokenizer.ggml.tokens")?;
        let special = |name: &str| {
            let id = file.token_id(&format!("tokenizer.ggml.{name}_token_id"))?;
            Some(SpecialToken { text: tokens.get(id as usize)?.clone(), id })
        };
        let (bos, eos) = (special("bos"), special("eos"));
        let tokenizer_json = describe(file, kind, tokens, bos.as_ref(), eos.as_ref())?.to_string();
        let tokenizer = Tokenizer::from_bytes(&tokenizer_json)
            .map_err(|error| Error::data(format!("the tokenizer cannot be rebuilt: {error}")))?;
        Ok(Self {
            tokenizer,
            tokenizer_json,
            chat_template: file.text("tokenizer.chat_template").map(str::to_owned),
            ends: ends(file, tokens, [&eos, &special("eot"), &special("eom")]),
            bos,
            eos,
            pad: special("padding"),
            unknown: special("unknown"),
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
            "unk_token": text(&self.unknown),
        })
    }
}

pub(super) fn texts<'a>(file: &'a GgufFile, key: &str) -> Result<&'a [String]> {
    match file.value(key) {
        Some(GgufValue::Texts(texts)) => Ok(texts),
        _ => Err(Error::data(format!("the metadata lacks the list {key}"))),
    }
}

fn kinds(file: &GgufFile) -> &[i64] {
    match file.value("tokenizer.ggml.token_type") {
        Some(GgufValue::Integers(kinds)) => kinds,
        _ => &[],
    }
}

/// Those that the file names, and control tokens that are known to end a turn.
fn ends(file: &GgufFile, tokens: &[String], named: [&Option<SpecialToken>; 3]) -> Vec<u32> {
    let mut ends: Vec<u32> = named.into_iter().flatten().map(|token| token.id).collect();
    for (id, (token, &kind)) in tokens.iter().zip(kinds(file)).enumerate() {
        if kind == CONTROL
            && TURN_ENDS.contains(&token.as_str())
            && let Ok(id) = u32::try_from(id)
        {
            ends.push(id);
        }
    }
    let mut met = std::collections::HashSet::new();
    ends.retain(|&id| met.insert(id));
    ends
}

fn describe(
    file: &GgufFile,
    kind: Kind,
    tokens: &[String],
    bos: Option<&SpecialToken>,
    eos: Option<&SpecialToken>,
) -> Result<Value> {
    let (parts, begins) = match kind {
        Kind::ByteLevel => (byte_level::describe(file, tokens)?, byte_level::adds_bos(file)),
        Kind::SentencePiece => (sentence_piece::describe(file, tokens, kinds(file))?, true),
    };
    let flag = |name: &str| file.flag(&format!("tokenizer.ggml.{name}"));
    let bos = bos.filter(|_| flag("add_bos_token").unwrap_or(begins));
    let eos = eos.filter(|_| flag("add_eos_token").unwrap_or(false));
    let mut whole = Map::new();
    whole.insert("version".into(), json!("1.0"));
    whole.insert("truncation".into(), Value::Null);
    whole.insert("padding".into(), Value::Null);
    whole.insert("added_tokens".into(), json!(added_tokens(file, kind, tokens)));
    whole.insert("post_processor".into(), framed(bos, eos));
    whole.extend(parts);
    Ok(Value::Object(whole))
}

fn added_tokens(file: &GgufFile, kind: Kind, tokens: &[String]) -> Vec<Value> {
    let is_added = |token: &str, of: i64| match kind {
        Kind::ByteLevel => matches!(of, CONTROL | USER_DEFINED),
        Kind::SentencePiece => sentence_piece::is_added(token, of),
    };
    // llama.cpp knows by the name too that Phi 3 leaves out the white space behind its special tokens.
    let name = file.text("general.name").unwrap_or_default().to_lowercase();
    let strips = name.contains("phi-3") || name.contains("phi3");
    let kept = ["<unk>", "<s>", "<|endoftext|>"];
    let added = tokens.iter().zip(kinds(file)).enumerate().filter(|(_, (token, of))| is_added(token, **of));
    added
        .map(|(id, (token, &of))| {
            json!({
                "id": id, "content": token, "single_word": false, "lstrip": false,
                "rstrip": strips && !kept.contains(&token.as_str()),
                "normalized": false, "special": of != USER_DEFINED,
            })
        })
        .collect()
}

/// The post-processor that puts `bos` before a text and `eos` behind it.
fn framed(bos: Option<&SpecialToken>, eos: Option<&SpecialToken>) -> Value {
    if bos.is_none() && eos.is_none() {
        return Value::Null;
    }
    let token = |token: &SpecialToken| json!({ "SpecialToken": { "id": token.text, "type_id": 0 } });
    let mut special_tokens = Map::new();
    for special in bos.into_iter().chain(eos) {
        let described = json!({ "id": special.text, "ids": [special.id], "tokens": [special.text] });
        special_tokens.insert(special.text.clone(), described);
    }
    let around = |sequences: &[&str]| {
        let inner = sequences.iter().map(|id| json!({ "Sequence": { "id": id, "type_id": 0 } }));
        bos.map(token).into_iter().chain(inner).chain(eos.map(token)).collect::<Vec<_>>()
    };
    json!({
        "type": "TemplateProcessing",
        "single": around(&["A"]),
        "pair": around(&["A", "B"]),
        "special_tokens": special_tokens,
    })
}
