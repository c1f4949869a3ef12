//! Rows, the fixtures' tokenizer, and data sets made of them.

use lazytune::Result;
use lazytune::config::{DataSection, TrainOn, Validation};
use lazytune::data::{ChatTokenizer, Dataset, Example};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

pub fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path)
}

/// The fixture tokenizer with its own template (ChatML), or another one.
pub fn tokenizer(template: Option<&str>) -> ChatTokenizer {
    let tokenizer = ChatTokenizer::from_folder(&fixture("tokenizer")).unwrap();
    match template {
        Some(name) => {
            tokenizer.with_template_file(&fixture(&format!("chat_templates/{name}.jinja"))).unwrap()
        }
        None => tokenizer,
    }
}

pub fn section(train_on: TrainOn, max_length: usize) -> DataSection {
    DataSection {
        validation: Validation::None,
        validation_fraction: 0.1,
        max_length,
        train_on,
        ..DataSection::default()
    }
}

pub fn write_rows(rows: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.jsonl");
    std::fs::write(&path, rows).unwrap();
    (folder, path)
}

pub fn load_with(rows: &str, tokenizer: Option<&ChatTokenizer>, section: &DataSection) -> Result<Dataset> {
    let (_folder, path) = write_rows(rows);
    Dataset::load(&[path], tokenizer, section, &mut |_| {})
}

pub fn load(rows: &[Value], tokenizer: &ChatTokenizer, train_on: TrainOn) -> Result<Dataset> {
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    load_with(&lines.join("\n"), Some(tokenizer), &section(train_on, 512))
}

/// An example as text, with trained stretches in brackets.
pub fn marked(example: &Example, tokenizer: &ChatTokenizer) -> String {
    let mut text = String::new();
    let mut start = 0;
    for end in 1..=example.len() {
        if end == example.len() || example.supervised[end] != example.supervised[start] {
            let piece = tokenizer.decode_with_special(&example.input_ids[start..end]).unwrap();
            text.push_str(&if example.supervised[start] { format!("[{piece}]") } else { piece });
            start = end;
        }
    }
    text
}

pub fn marked_row(row: Value, tokenizer: &ChatTokenizer, train_on: TrainOn) -> String {
    marked(&load(&[row], tokenizer, train_on).unwrap().examples()[0], tokenizer)
}

pub fn conversation() -> Value {
    json!({"messages": [
        {"role": "system", "content": "You are helpful."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi, ünïcode \u{1F98A}"},
        {"role": "user", "content": "two plus two?"},
        {"role": "assistant", "content": "four"},
    ]})
}
