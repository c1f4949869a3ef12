//! SentencePiece (`tokenizer.ggml.model = "llama"`), as of Llama 2, Mistral, Gemma and Phi 3.
//!
//! A SentencePiece BPE joins the neighbours whose union has the best score. As a list of merges, which is what
//! `tokenizer.json` holds, that is every way to cut a token into two tokens, ordered by the whole token's score, as
//! transformers' `convert_slow_tokenizer` makes it. Scores of BPE models are whole numbers; fractions are the
//! logarithms of a Unigram model.

use std::cmp::Reverse;
use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::tokenizer::{BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED};
use super::{GgufFile, GgufValue};
use crate::error::{Error, Result};

/// What stands for a space inside tokens.
const SPACE: &str = "\u{2581}";

/// Bytes of a token beyond which the file is damaged: trying all cuts takes the square of it.
const LONGEST: usize = 1024;

/// A file's vocabulary.
struct Pieces<'a> {
    /// As the model knows them: a run of spaces in SentencePiece's spelling.
    texts: Vec<String>,
    kinds: &'a [i64],
    scores: &'a [f64],
    unknown: usize,
}

/// The parts of `tokenizer.json` that depend on the kind of tokenizer.
pub(super) fn describe(file: &GgufFile, tokens: &[String], kinds: &[i64]) -> Result<Map<String, Value>> {
    let scores = match file.value("tokenizer.ggml.scores") {
        Some(GgufValue::Floats(scores)) if scores.len() == tokens.len() => scores,
        _ => return Err(Error::data("the metadata lacks a score for each token in tokenizer.ggml.scores")),
    };
    if let Some(long) = tokens.iter().zip(kinds).find(|(text, kind)| **kind == NORMAL && text.len() > LONGEST)
    {
        return Err(Error::data(format!("tokenizer.ggml.tokens has a token of {} bytes", long.0.len())));
    }
    if kinds.len() != tokens.len() {
        return Err(Error::data("the metadata lacks a type for each token in tokenizer.ggml.token_type"));
    }
    let unknown = file.token_id("tokenizer.ggml.unknown_token_id").map_or(0, |id| id as usize);
    let texts = tokens.iter().zip(kinds).map(|(text, &kind)| spelled(text, kind)).collect();
    let mut pieces = Pieces { texts, kinds, scores, unknown };
    if unknown >= tokens.len() {
        return Err(Error::data(format!("tokenizer.ggml.unknown_token_id is {unknown}, beyond all tokens")));
    }
    pieces.name_tab();
    let prefixed = file.flag("tokenizer.ggml.add_space_prefix").unwrap_or(true);
    let first_only = pieces.has_instruction_tokens();
    let mut parts = Map::new();
    let (normalizer, pre_tokenizer) = spaces(prefixed, first_only);
    parts.insert("normalizer".into(), normalizer);
    parts.insert("pre_tokenizer".into(), pre_tokenizer);
    parts.insert("decoder".into(), decoder(prefixed));
    parts.insert("model".into(), if pieces.are_unigrams() { pieces.unigram() } else { pieces.bpe() });
    Ok(parts)
}

/// Whether a token is matched in text before anything else. Runs of spaces are left to the merges, as in Gemma's
/// `tokenizer.json`.
pub(super) fn is_added(text: &str, kind: i64) -> bool {
    match kind {
        CONTROL | UNKNOWN => true,
        USER_DEFINED => !is_spaces(text),
        _ => false,
    }
}

fn is_spaces(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|character| character == ' ' || SPACE.starts_with(character))
}

/// The converter writes user-defined tokens with plain spaces.
fn spelled(text: &str, kind: i64) -> String {
    if kind == USER_DEFINED && is_spaces(text) { text.replace(' ', SPACE) } else { text.to_owned() }
}

/// Normalizer and pre-tokenizer: spaces become marks, and one is put in front of a text, or of what follows a special
/// token too.
fn spaces(prefixed: bool, first_only: bool) -> (Value, Value) {
    let replace = json!({ "type": "Replace", "pattern": { "String": " " }, "content": SPACE });
    if !prefixed {
        return (replace, Value::Null);
    }
    if first_only {
        let marks = json!({
            "type": "Metaspace", "replacement": SPACE, "prepend_scheme": "first", "split": false,
        });
        return (Value::Null, marks);
    }
    let prepend = json!({ "type": "Prepend", "prepend": SPACE });
    (json!({ "type": "Sequence", "normalizers": [prepend, replace] }), Value::Null)
}

fn decoder(prefixed: bool) -> Value {
    let mut decoders = vec![
        json!({ "type": "Replace", "pattern": { "String": SPACE }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if prefixed {
        decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    json!({ "type": "Sequence", "decoders": decoders })
}

impl Pieces<'_> {
    /// The first Gemma tokenizers lack a tab, though some of their tokens hold one: its byte stands for it.
    fn name_tab(&mut self) {
        let tab = |text: &String| text == "\t";
        let held = self.texts.iter().any(|text| text.len() > 1 && text.contains('\t'));
        if held
            && !self.texts.iter().any(tab)
            && let Some(byte) = self.texts.iter_mut().find(|text| *text == "<0x09>")
        {
            *byte = "\t".into();
        }
    }

    /// Mistral's tokenizers from the third version on, whose `tokenizer.json` marks the start of a text only.
    fn has_instruction_tokens(&self) -> bool {
        self.texts.iter().zip(self.kinds).any(|(text, &kind)| text == "[INST]" && kind == CONTROL)
    }

    fn are_unigrams(&self) -> bool {
        self.scores.iter().zip(self.kinds).any(|(score, &kind)| kind == NORMAL && score.fract() != 0.0)
    }

    fn unigram(&self) -> Value {
        let special = |kind: i64| matches!(kind, CONTROL | UNKNOWN | USER_DEFINED);
        let scored = self.texts.iter().zip(self.scores).zip(self.kinds);
        let vocabulary: Vec<_> = scored
            .map(|((text, &score), &kind)| json!([text, if special(kind) { 0.0 } else { score }]))
            .collect();
        let byte_fallback = self.kinds.contains(&BYTE);
        json!({ "type": "Unigram", "unk_id": self.unknown, "vocab": vocabulary, "byte_fallback": byte_fallback })
    }

    fn bpe(&self) -> Value {
        let mut vocabulary = Map::new();
        for (id, text) in self.texts.iter().enumerate() {
            // A repeated text keeps its first id, as in llama.cpp.
            vocabulary.entry(text.as_str()).or_insert_with(|| json!(id));
        }
        json!({
            "type": "BPE",
            "dropout": null,
            "unk_token": self.texts.get(self.unknown),
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": true,
            "byte_fallback": self.kinds.contains(&BYTE),
            "ignore_merges": false,
            "vocab": vocabulary,
            "merges": self.merges(),
        })
    }

    /// Best score first; equal scores in the order of the tokens, and of their parts.
    fn merges(&self) -> Vec<(&str, &str)> {
        let joined = |id: &usize| match self.kinds[*id] {
            CONTROL | UNKNOWN | UNUSED => false,
            BYTE => self.texts[*id] == "\t",
            USER_DEFINED => is_spaces(&self.texts[*id]),
            _ => true,
        };
        let ids: HashMap<&str, usize> =
            (0..self.texts.len()).filter(joined).rev().map(|id| (self.texts[id].as_str(), id)).collect();
        let score = |id: usize| if self.kinds[id] == USER_DEFINED { 0.0 } else { self.scores[id] };
        let mut order: Vec<usize> = ids.values().copied().collect();
        order.sort_unstable_by_key(|&id| (Reverse(Ordered(score(id))), id));
        let mut merges = Vec::new();
        for id in order {
            let text = self.texts[id].as_str();
            let cuts = text.char_indices().skip(1).map(|(at, _)| text.split_at(at));
            let known = |(left, right): (&str, &str)| Some((*ids.get(left)?, *ids.get(right)?));
            let mut parts: Vec<(usize, usize)> = cuts.filter_map(known).collect();
            parts.sort_unstable();
            merges.extend(
                parts
                    .into_iter()
                    .map(|(left, right)| (self.texts[left].as_str(), self.texts[right].as_str())),
            );
        }
        merges
    }
}

/// Scores in their total order.
#[derive(PartialEq)]
struct Ordered(f64);

impl Eq for Ordered {}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}
