//! `generate` and `merge` on the real binary: what they answer, and what they refuse.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use std::path::Path;

use lazytune::executor::{HostTensor, StepInputs};
use lazytune::graph::{ComputationGraph, DType};
use lazytune::model::{Parameters, Tokens, Trained};
use lazytune::train::model::OpenModel;
use support::prepared::{assert_silent, train, truncate, workspace};
use support::workspace::{Outcome, Workspace, golden, snapshot, tensors};
use support::{FAMILIES, GGUF, block_on, compute, executor, relative_error, two_threads};

fn generate(workspace: &Workspace, arguments: &[&str]) -> Outcome {
    workspace.run(
        &[&["generate", "--threads", "2", "--max-tokens", "12", "--prompt", "Define love"], arguments]
            .concat(),
    )
}

#[test]
fn generate_answers_with_and_without_an_adapter() {
    let workspace = workspace();
    train(&workspace);
    let base = generate(&workspace, &["--model", "base"]).exits(0).says(&["12 tokens", "tokens/s"]);
    assert_eq!(
        base.stdout,
        generate(&workspace, &["--model", "base"]).exits(0).stdout,
        "greedy decoding is certain"
    );
    let adapted = generate(&workspace, &["--model", "base", "--adapter", "run/adapter"]).exits(0);
    assert_ne!(base.stdout, adapted.stdout, "the adapter changes nothing");
    let both = generate(&workspace, &["--model", "base", "--adapter", "run/adapter", "--compare"]).exits(0);
    assert_eq!(both.stdout, format!("--- base\n{}--- adapted\n{}", base.stdout, adapted.stdout));

    let warm = |seed: &str| {
        let sampling = ["--model", "base", "--temperature", "1.5", "--top-p", "0.9", "--seed", seed];
        generate(&workspace, &sampling).exits(0).stdout
    };
    assert_eq!(warm("1"), warm("1"));
    assert_ne!(warm("1"), warm("2"));
    let raw = generate(&workspace, &["--model", "base", "--raw"]).exits(0).stdout;
    assert_ne!(raw, base.stdout, "the chat template is applied unless --raw");
    let system = generate(&workspace, &["--model", "base", "--system", "Be brief."]).exits(0).stdout;
    assert_ne!(system, base.stdout);
}

#[test]
fn generate_refuses_what_it_cannot_do() {
    let workspace = workspace();
    let refused = |arguments: &[&str], code: i32, says: &[&str]| {
        let outcome = generate(&workspace, arguments).exits(code).says(says);
        assert_silent(&outcome.stdout);
        assert!(!outcome.stderr.contains("internal"), "{}", outcome.stderr);
    };
    refused(&["--model", "nowhere"], 2, &["nowhere"]);
    refused(&["--model", "rows.jsonl"], 2, &["rows.jsonl"]);
    refused(&["--model", "base", "--adapter", "nowhere"], 1, &["nowhere"]);
    let stranger = golden("gqa_tied/adapter");
    refused(&["--model", "base", "--adapter", stranger.to_str().unwrap()], 1, &["lora_A"]);
    refused(&["--model", "base", "--compare"], 2, &["--adapter"]);
    refused(&["--model", "base", "--temperature=-1"], 2, &["temperature"]);
    refused(&["--model", "base", "--temperature", "inf"], 2, &["temperature"]);
    refused(&["--model", "base", "--top-p", "0"], 2, &["top-p"]);
    refused(&["--model", "base", "--top-p", "nan"], 2, &["top-p"]);
    refused(&["--model", golden("gqa_tied/base").to_str().unwrap()], 1, &["tokenizer"]);
    let long = "word ".repeat(400);
    let outcome = workspace.run(&["generate", "--model", "base", "--prompt", &long]).exits(2);
    assert_silent(&outcome.says(&["prompt", "128"]).stdout);
    // More than fits is cut to the model's context and takes no memory.
    let endless = ["generate", "--model", "base", "--prompt", "Hi", "--max-tokens", "1000000000000"];
    workspace.run(&endless).exits(0);
}

#[test]
fn a_tokenizer_with_more_tokens_than_the_model_is_refused_where_one_is_used() {
    let workspace = workspace();
    let path = workspace.path("base/tokenizer.json");
    let mut tokenizer: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let id = tokenizers::Tokenizer::from_file(&path).unwrap().get_vocab_size(true);
    let token = serde_json::json!({
        "id": id, "content": "love", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": false,
    });
    tokenizer["added_tokens"].as_array_mut().unwrap().push(token);
    std::fs::write(&path, tokenizer.to_string()).unwrap();
    let says = [&format!("token {id}"), "vocabulary has", "the tokenizer that belongs to the model"];
    assert_silent(&generate(&workspace, &["--model", "base"]).exits(1).says(&says).stdout);
    let refused = workspace.run(&["train", "run.toml", "--run-dir", "run"]).exits(1);
    refused.says(&["rows.jsonl:1", &format!("token id {id} does not exist in the model")]);
    assert!(!workspace.path("run").exists());
}

/// The predictions after each of `ids`, [tokens, vocab].
fn logits(model: &OpenModel, adapter: Option<&Path>, ids: &[u32]) -> Vec<f64> {
    let executor = executor(two_threads());
    block_on(executor.set_weights(model.weight_loader())).unwrap();
    let trained = adapter.map_or(Trained::Nothing, |folder| {
        let (trained, values) = model.adapter(folder).unwrap();
        block_on(executor.set_states(values.into_iter().collect())).unwrap();
        trained
    });
    let graph = ComputationGraph::new();
    let parameters = Parameters::new(&graph, &trained, DType::F32, None);
    let hidden = model.decoder.hidden_states(&parameters, &Tokens::packed(&graph, 1, ids.len(), 64));
    let logits = model.decoder.logits(&parameters, &hidden);
    let tensor = |values: Vec<u32>| HostTensor::u32(&[ids.len()], values).unwrap();
    let inputs = StepInputs::from([
        ("input_ids".into(), tensor(ids.to_vec())),
        ("positions".into(), tensor((0..ids.len() as u32).collect())),
        ("segments".into(), tensor(vec![0; ids.len()])),
    ]);
    compute(&executor, &[logits], &inputs, false)[0].to_f64()
}

#[test]
fn merged_equals_unmerged() {
    let workspace = workspace();
    let adapter = train(&workspace);
    let outcome =
        workspace.run(&["merge", "--model", "base", "--adapter", "run/adapter", "--out", "merged"]).exits(0);
    assert_eq!(outcome.stdout.trim(), "merged");
    outcome.says(&["14 layers"]);
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        assert!(workspace.path("merged").join(name).exists(), "{name}");
    }
    let unmerged = generate(&workspace, &["--model", "base", "--adapter", "run/adapter"]).exits(0).stdout;
    assert_eq!(generate(&workspace, &["--model", "merged"]).exits(0).stdout, unmerged);
    assert_ne!(generate(&workspace, &["--model", "base"]).exits(0).stdout, unmerged);

    let open = |name: &str| OpenModel::named(workspace.path(name).to_str().unwrap(), None).unwrap();
    let ids: Vec<u32> = (10..30).collect();
    let expected = logits(&open("base"), Some(&adapter), &ids);
    let error = relative_error(&logits(&open("merged"), None, &ids), &expected, 0.0);
    assert!(error < 1e-5, "logits are {error:e} away");
    let change = relative_error(&logits(&open("base"), None, &ids), &expected, 0.0);
    assert!(change > 1e-2, "the adapter changes logits by {change:e} only");
    let same = |name: &str| {
        tensors(&workspace.path(name).join("model.safetensors"))["model.embed_tokens.weight"].clone()
    };
    assert!(same("base") == same("merged"), "the embedding has no adapter");
}

#[test]
fn merge_overwrites_nothing_and_leaves_nothing_half_done() {
    let workspace = workspace();
    train(&workspace);
    workspace.write("taken/mine.txt", "mine");
    workspace.write("file", "mine");
    let merge = |model: &str, adapter: &str, out: &str| {
        workspace.run(&["merge", "--model", model, "--adapter", adapter, "--out", out])
    };
    for out in ["taken", "file", "base"] {
        let before = snapshot(&workspace.path(""));
        assert_silent(&merge("base", "run/adapter", out).exits(2).says(&[out, "exists"]).stdout);
        assert!(snapshot(&workspace.path("")) == before);
    }
    let stranger = golden("gqa_tied/adapter");
    merge("base", stranger.to_str().unwrap(), "out").exits(1).says(&["lora_A"]);
    merge("base", "nowhere", "out").exits(1).says(&["nowhere"]);
    merge("nowhere", "run/adapter", "out").exits(2).says(&["nowhere"]);
    truncate(&workspace, "run/adapter/adapter_model.safetensors", 50);
    merge("base", "run/adapter", "out").exits(1).says(&["adapter_model.safetensors"]);
    let left: Vec<_> =
        std::fs::read_dir(workspace.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("out")), "{left:?}");
}

/// The predictions after each of `ids`, of which the first `prefill` are read at once and the others one by one.
fn decoded(model: &OpenModel, ids: &[u32], prefill: usize) -> Vec<f64> {
    const CAPACITY: usize = 32;
    let executor = executor(two_threads());
    block_on(executor.set_weights(model.weight_loader())).unwrap();
    let width = model.decoder.kv_heads * model.decoder.head_dim;
    let empty = HostTensor::f32(&[CAPACITY, width], vec![0.0; CAPACITY * width]).unwrap();
    let names =
        (0..model.decoder.layers()).flat_map(|layer| ["k", "v"].map(|part| format!("cache.{layer}.{part}")));
    block_on(executor.set_states(names.map(|name| (name, empty.clone())).collect())).unwrap();
    let mut all = Vec::new();
    let mut start = 0;
    while start < ids.len() {
        let seq = if start == 0 { prefill } else { 1 };
        let graph = ComputationGraph::new();
        let parameters = Parameters::new(&graph, &Trained::Nothing, DType::F32, None);
        let hidden = model.decoder.hidden_states(&parameters, &Tokens::cached(&graph, seq, CAPACITY));
        let logits = model.decoder.logits(&parameters, &hidden);
        let tensor = |values: Vec<u32>| HostTensor::u32(&[values.len()], values).unwrap();
        let inputs = StepInputs::from([
            ("input_ids".into(), tensor(ids[start..start + seq].to_vec())),
            ("positions".into(), tensor((start as u32..(start + seq) as u32).collect())),
            ("start".into(), tensor(vec![start as u32])),
        ]);
        all.extend(compute(&executor, &[logits], &inputs, false)[0].to_f64());
        start += seq;
    }
    all
}

/// Caches, windows, layers without positions and soft caps: decoding gives what a whole pass gives.
#[test]
fn every_family_decodes_what_it_computes() {
    let ids: Vec<u32> = (3..23).collect();
    for case in FAMILIES {
        let model = OpenModel::named(golden(case).join("base").to_str().unwrap(), None).unwrap();
        let error = relative_error(&decoded(&model, &ids, 7), &logits(&model, None, &ids), 0.0);
        assert!(error < 1e-5, "{case}: logits are {error:e} away");
    }
}

/// From safetensors and from GGUF, whose config.json is written anew.
#[test]
fn every_family_merges() {
    let workspace = Workspace::new();
    let ids: Vec<u32> = (3..15).collect();
    let bases = FAMILIES.map(|case| (case, "base")).into_iter().chain(GGUF.map(|case| (case, "base.gguf")));
    for (case, base) in bases {
        let (model, adapter) = (golden(case).join(base), golden(case).join("adapter"));
        let [base, folder] = [model.to_str().unwrap(), adapter.to_str().unwrap()];
        let out = format!("{case}-{}", model.extension().is_some());
        workspace.run(&["merge", "--model", base, "--adapter", folder, "--out", &out]).exits(0);
        let expected = logits(&OpenModel::named(base, None).unwrap(), Some(&adapter), &ids);
        let merged = OpenModel::named(workspace.path(&out).to_str().unwrap(), None).unwrap();
        let error = relative_error(&logits(&merged, None, &ids), &expected, 0.0);
        assert!(error < 1e-5, "{out}: logits are {error:e} away");
    }
}

#[test]
fn models_and_adapters_are_inspected() {
    let workspace = Workspace::new();
    let inspect = |path: &str| {
        let path = golden(path);
        let outcome = workspace.run(&["inspect", "--json", path.to_str().unwrap()]).exits(0);
        serde_json::from_str::<serde_json::Value>(&outcome.stdout).unwrap()
    };
    let model = inspect("gemma3/base");
    assert_eq!(model["architecture"], "Gemma3ForCausalLM");
    assert_eq!(model["sliding_window"], "4 tokens in 5 of 6 layers");
    assert_eq!(model["rope"], "theta 1000, linear, factor 2");
    let same = inspect("gemma3/base.gguf");
    assert_eq!((&same["parameters"], &same["tied_head"]), (&model["parameters"], &model["tied_head"]));
    for base in ["qwen3_moe/base", "qwen3_moe/base.gguf"] {
        let model = inspect(base);
        assert_eq!(model["experts"], "2 of 6 for a token, 12 features each, in 2 of 2 layers");
        assert_eq!(model["parameters"], 17960);
    }
    let adapter = inspect("mixtral/adapter");
    assert_eq!((&adapter["adapted_modules"][4], &adapter["tensors"]), (&"w1".into(), &64.into()));
    let adapter = inspect("phi3/adapter");
    assert_eq!((&adapter["rank"], &adapter["layers"]), (&3.into(), &2.into()));
    assert_eq!(adapter["adapted_modules"][1], "gate_up_proj");
    workspace.run(&["inspect", "nowhere"]).exits(2).says(&["nowhere does not exist"]);
    workspace.run(&["models"]).exits(0);
}
