//! Tokens that a run adds: in the tokenizer, in the tables, trained, stored, used and merged by the real binary.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use std::path::Path;

use lazytune::data::ChatTokenizer;
use lazytune::train::model::OpenModel;
use serde_json::{Value, json};
use support::prepared;
use support::workspace::{Workspace, field, golden, steps, tensors};

const TOKENS: [&str; 3] = ["<tool>", "</tool>", "<think>"];

/// The workspace of other tests with rows that hold tokens of a tool.
fn workspace() -> Workspace {
    let workspace = prepared::workspace();
    let row = |row: usize| json!({"text": format!("<tool>call {row}</tool> love<think>")}).to_string() + "\n";
    workspace.write("rows.jsonl", (0..20).map(row).collect::<String>());
    workspace
}

fn train(workspace: &Workspace, run: &str, keys: &[&str]) -> support::workspace::Outcome {
    let mut arguments = vec!["train", "run.toml", "--run-dir", run, "--plain"];
    let added = [
        "model.add_tokens=[\"<tool>\", \"</tool>\"]",
        "model.add_special_tokens=[\"<think>\", \"<|im_end|>\"]",
    ];
    added.iter().chain(keys).for_each(|key| arguments.extend(["--set", key]));
    workspace.run(&arguments)
}

fn json_file(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn losses(workspace: &Workspace, run: &str) -> Vec<f64> {
    field(&steps(&workspace.path(run).join("metrics.jsonl")), "loss")
}

/// Ids of the added tokens in a folder's tokenizer.
fn ids(folder: &Path) -> Vec<u32> {
    let tokenizer = ChatTokenizer::from_folder(folder).unwrap();
    TOKENS.iter().map(|token| tokenizer.tokenizer().token_to_id(token).unwrap()).collect()
}

#[test]
fn rows_of_added_tokens_are_trained_stored_used_and_merged() {
    let workspace = workspace();
    train(&workspace, "run", &[]).exits(0);
    let adapter = workspace.path("run/adapter");
    let vocab = u32::try_from(
        OpenModel::named(workspace.path("base").to_str().unwrap(), None).unwrap().source.config.vocab_size,
    )
    .unwrap();
    assert_eq!(ids(&adapter), [vocab, vocab + 1, vocab + 2]);
    // A token that the tokenizer had keeps its id, and its row is trained too.
    let end = ChatTokenizer::from_folder(&adapter).unwrap().tokenizer().token_to_id("<|im_end|>").unwrap();
    let trained = json!([vocab, vocab + 1, vocab + 2, end]);
    let config = json_file(&adapter.join("adapter_config.json"));
    assert_eq!(config["trainable_token_indices"], json!({ "embed_tokens": trained, "lm_head": trained }));
    let stored = tensors(&adapter.join("adapter_model.safetensors"));
    let rows = &stored["base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"];
    assert_eq!(rows.0, [4, 16]);
    assert!(!stored.keys().any(|name| name.contains("base_layer")));
    // All three start as the mean of the table, and part.
    assert_ne!(rows.1[..16], rows.1[16..32]);

    workspace.run(&["merge", "--model", "base", "--adapter", "run/adapter", "--out", "merged"]).exits(0);
    assert_eq!(ids(&workspace.path("merged")), ids(&adapter));
    assert_eq!(json_file(&workspace.path("merged/config.json"))["vocab_size"], vocab + 3);
    let answer = |model: &[&str]| {
        let fixed =
            ["generate", "--threads", "2", "--max-tokens", "12", "--prompt", "<tool>call 3</tool>", "--raw"];
        workspace.run(&[&fixed, model].concat()).exits(0).stdout
    };
    assert_eq!(answer(&["--model", "base", "--adapter", "run/adapter"]), answer(&["--model", "merged"]));
    let shown = workspace.run(&["inspect", "--json", "run/adapter"]).exits(0).stdout;
    assert_eq!(serde_json::from_str::<Value>(&shown).unwrap()["trained_tokens"]["lm_head"], trained);
}

#[test]
fn a_run_goes_on_from_added_tokens() {
    let workspace = workspace();
    train(&workspace, "whole", &[]).exits(0);
    train(&workspace, "halves", &["train.max_steps=4", "schedule.name=\"constant\""]).exits(0);
    // Without naming the tokens again.
    let next = ["train", "run.toml", "--run-dir", "next", "--set", "adapter.init=halves/adapter", "--plain"];
    prepared::replace(&workspace, "run.toml", "r = 4\n", "");
    workspace.run(&next).exits(0);
    assert!(losses(&workspace, "next")[0] < losses(&workspace, "halves")[0]);
    assert_eq!(ids(&workspace.path("next/adapter")), ids(&workspace.path("halves/adapter")));
    // Other tokens are not in it.
    let other = [&next[..], &["--set", "model.add_tokens=[\"<other>\"]"]].concat();
    let other: Vec<&str> =
        other.into_iter().map(|part| if part == "next" { "other" } else { part }).collect();
    workspace.run(&other).exits(2).says(&["does not train all tokens of model.add_tokens"]);
}

#[test]
fn tables_with_added_tokens_can_be_trained_whole() {
    let workspace = workspace();
    train(&workspace, "run", &["adapter.modules_to_save=[\"embed_tokens\", \"lm_head\"]"]).exits(0);
    let config = json_file(&workspace.path("run/adapter/adapter_config.json"));
    assert_eq!(config["trainable_token_indices"], Value::Null);
    let stored = tensors(&workspace.path("run/adapter/adapter_model.safetensors"));
    let base = tensors(&workspace.path("base/model.safetensors"));
    let rows = base["model.embed_tokens.weight"].0[0];
    assert_eq!(stored["base_model.model.model.embed_tokens.weight"].0, [rows + 3, 16]);
    workspace.run(&["merge", "--model", "base", "--adapter", "run/adapter", "--out", "merged"]).exits(0);
    train(&workspace, "full", &["adapter.method=\"full\"", "adapter.r=8"]).exits(0);
    assert_eq!(json_file(&workspace.path("full/model/config.json"))["vocab_size"], rows + 3);
    assert_eq!(ids(&workspace.path("full/model")), ids(&workspace.path("run/adapter")));
    let refused = train(&workspace, "pair", &["adapter.target_modules=[\"lm_head\"]"]).exits(2);
    refused.says(&["beside a LoRA pair on lm_head"]);
    let twice = train(&workspace, "twice", &["model.add_tokens=[\"<think>\"]"]).exits(2);
    twice.says(&["`<think>` is listed twice"]);
}

#[test]
fn gguf_files_take_tokens() {
    let workspace = Workspace::new();
    let base = golden("qwen2/base.gguf");
    workspace.write("rows.jsonl", (0..8).map(|_| "{\"text\": \"ab<tool>ba<tool>\"}\n").collect::<String>());
    let config =
        prepared::CONFIG.replace("path = \"base\"", &format!("path = {base:?}\nadd_tokens = [\"<tool>\"]"));
    workspace.write("run.toml", config);
    workspace.run(&["train", "run.toml", "--run-dir", "run", "--plain"]).exits(0);
    assert!(losses(&workspace, "run")[7] < losses(&workspace, "run")[0]);
    let config = json_file(&workspace.path("run/adapter/adapter_config.json"));
    // A tied head shares them.
    assert_eq!(config["trainable_token_indices"], json!([53]));
    let base = base.to_str().unwrap();
    workspace.run(&["merge", "--model", base, "--adapter", "run/adapter", "--out", "merged"]).exits(0);
    assert_eq!(json_file(&workspace.path("merged/config.json"))["vocab_size"], 54);
    let tokenizer = ChatTokenizer::from_folder(&workspace.path("merged")).unwrap();
    assert_eq!(tokenizer.encode("ab<tool>").unwrap(), [5, 53]);
}
