//! Every command of the real binary, with good and with bad input: exit codes, streams, and what stays untouched.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use std::path::{Path, PathBuf};

use lazytune::executor::{HostTensor, StepInputs};
use lazytune::graph::{ComputationGraph, DType};
use lazytune::model::{Parameters, Tokens, Trained};
use lazytune::train::model::OpenModel;
use serde_json::{Value, json};
use support::workspace::{Outcome, Workspace, golden, snapshot, steps, tensors};
use support::{block_on, compute, executor, relative_error, two_threads};

const CONFIG: &str = r#"
[model]
path = "base"
threads = 2
[data]
train = ["rows.jsonl"]
validation = "auto"
validation_fraction = 0.2
max_length = 64
[adapter]
r = 4
[optimizer]
learning_rate = 0.02
[train]
batch_size = 4
max_steps = 8
save_steps = 4
eval_steps = 4
"#;

/// Rows of each kind, no two alike.
fn rows() -> String {
    let row = |row: usize| match row % 4 {
        0 => json!({"messages": [
            {"role": "user", "content": format!("Define love, part {row}")},
            {"role": "assistant", "content": "A temporary insanity."},
        ]}),
        1 => json!({"prompt": format!("Define war {row}: "), "completion": "a by-product of peace"}),
        2 => json!({"text": format!("A day of twenty-four hours, {row} of them misspent.")}),
        _ => json!({"input_ids": [20, 30, 40, 50 + row], "labels": [-100, -100, 40, 50 + row]}),
    };
    (0..20).map(|number| row(number).to_string() + "\n").collect()
}

/// A folder with a model, rows and a configuration.
fn workspace() -> Workspace {
    let workspace = Workspace::new();
    workspace.model("base");
    workspace.write("rows.jsonl", rows());
    workspace.write("run.toml", CONFIG);
    workspace
}

fn train(workspace: &Workspace) -> PathBuf {
    workspace.run(&["train", "run.toml", "--run-dir", "run", "--quiet"]).exits(0);
    workspace.path("run/adapter")
}

fn assert_silent(stream: &str) {
    assert!(stream.is_empty(), "{stream}");
}

#[test]
fn train_writes_a_run_that_its_own_config_repeats() {
    let workspace = workspace();
    let outcome = workspace.run(&["train", "run.toml", "--run-dir", "run"]).exits(0);
    let run = workspace.path("run");
    assert_eq!(Path::new(outcome.stdout.trim()), run.join("adapter"), "stdout is the result's place alone");
    let outcome = outcome.says(&["step 1/8", "step 8/8", "evaluation at step 8", "saved", "8 steps in"]);
    assert!(
        !outcome.stderr.contains('\u{1b}') && !outcome.stderr.contains('\r'),
        "plain lines off a terminal"
    );

    let lines = steps(&run.join("metrics.jsonl"));
    assert_eq!(lines.len(), 8);
    let fields = [
        "step",
        "loss",
        "learning_rate",
        "grad_norm",
        "tokens",
        "supervised_tokens",
        "tokens_per_second",
        "step_ms",
    ];
    for field in fields {
        assert!(lines.iter().all(|line| line[field].is_number()), "{field}");
    }
    for name in [
        "adapter_config.json",
        "adapter_model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "README.md",
    ] {
        assert!(run.join("adapter").join(name).exists(), "{name}");
    }
    assert!(run.join("checkpoint-4").is_dir() && run.join("checkpoint-8").is_dir());

    workspace.run(&["train", "run/config.toml", "--run-dir", "again"]).exits(0);
    let weights =
        |run: &str| std::fs::read(workspace.path(run).join("adapter/adapter_model.safetensors")).unwrap();
    assert!(weights("run") == weights("again"), "the resolved configuration gives another run");
}

#[test]
fn train_trains_every_weight_and_random_models() {
    let workspace = workspace();
    replace(&workspace, "run.toml", "r = 4", "");
    let full =
        ["train", "run.toml", "--set", "adapter.method=\"full\"", "--set", "optimizer.learning_rate=1e-3"];
    workspace.run(&[&full[..], &["--run-dir", "full"]].concat()).exits(0);
    let random = [&full[..], &["--set", "model.init=\"random\"", "--run-dir", "random"]].concat();
    std::fs::remove_file(workspace.path("base/model.safetensors")).unwrap();
    workspace.run(&random).exits(0);
    for run in ["full", "random"] {
        let model = workspace.path(run).join("model");
        let text = workspace.run(&[
            "generate",
            "--model",
            model.to_str().unwrap(),
            "--prompt",
            "Hi",
            "--max-tokens",
            "3",
        ]);
        text.exits(0);
    }
}

#[test]
fn quiet_prints_only_errors_and_the_result() {
    let workspace = workspace();
    let outcome = workspace.run(&["train", "run.toml", "--run-dir", "run", "--quiet"]).exits(0);
    assert_silent(&outcome.stderr);
    workspace.run(&["train", "run.toml", "--run-dir", "run", "--quiet"]).exits(2).says(&["error:"]);
}

#[test]
fn a_run_is_never_overwritten() {
    let workspace = workspace();
    train(&workspace);
    let before = snapshot(&workspace.path("run"));
    let refused = || {
        workspace
            .run(&["train", "run.toml", "--run-dir", "run"])
            .exits(2)
            .says(&["holds a run already", "--resume"])
    };
    assert_silent(&refused().stdout);
    assert!(snapshot(&workspace.path("run")) == before);
    for name in ["checkpoint-4", "checkpoint-8", "adapter"] {
        let folder = workspace.path("run").join(name);
        if folder.exists() {
            std::fs::remove_dir_all(folder).unwrap();
        }
    }
    let before = snapshot(&workspace.path("run"));
    refused();
    assert!(snapshot(&workspace.path("run")) == before, "metrics alone are a run, too");
}

#[test]
fn folders_of_others_in_a_run_directory_are_left_alone() {
    let workspace = workspace();
    workspace.write("shared/.tmp-notes/mine.txt", "mine");
    workspace.write("shared/.old-notes/mine.txt", "mine");
    workspace.run(&["train", "run.toml", "--run-dir", "shared"]).exits(0);
    for name in [".tmp-notes", ".old-notes"] {
        assert!(workspace.path("shared").join(name).join("mine.txt").exists(), "{name} was deleted");
    }
}

/// A way to break a workspace, the exit code, and what the message has to contain.
type Broken = (&'static str, fn(&Workspace), i32, &'static [&'static str]);

fn replace(workspace: &Workspace, file: &str, from: &str, to: &str) {
    let text = std::fs::read_to_string(workspace.path(file)).unwrap();
    assert!(text.contains(from), "{from:?} is not in {file}");
    workspace.write(file, text.replace(from, to));
}

fn truncate(workspace: &Workspace, file: &str, keep: usize) {
    let bytes = std::fs::read(workspace.path(file)).unwrap();
    workspace.write(file, &bytes[..bytes.len() * keep / 100]);
}

/// What can be wrong with what a configuration names.
const BROKEN: &[Broken] = &[
    ("no config", |w| std::fs::remove_file(w.path("run.toml")).unwrap(), 2, &["run.toml"]),
    ("unknown key", |w| replace(w, "run.toml", "batch_size", "batchsize"), 2, &["batchsize", "batch_size"]),
    (
        "wrong type",
        |w| replace(w, "run.toml", "max_steps = 8", "max_steps = \"8\""),
        2,
        &["max_steps", "run.toml"],
    ),
    ("not TOML", |w| replace(w, "run.toml", "[train]", "[train"), 2, &["run.toml"]),
    (
        "config not UTF-8",
        |w| drop(w.write("run.toml", b"[model]\npath = \"\xff\"\n")),
        2,
        &["run.toml", "UTF-8"],
    ),
    (
        "contradiction",
        |w| replace(w, "run.toml", "max_steps = 8", "max_steps = 8\nepochs = 2"),
        2,
        &["epochs", "max_steps"],
    ),
    ("no rows file", |w| std::fs::remove_file(w.path("rows.jsonl")).unwrap(), 2, &["rows.jsonl"]),
    ("no model", |w| std::fs::rename(w.path("base"), w.path("elsewhere")).unwrap(), 2, &["base"]),
    ("no weights", |w| std::fs::remove_file(w.path("base/model.safetensors")).unwrap(), 1, &["safetensors"]),
    ("no model config", |w| std::fs::remove_file(w.path("base/config.json")).unwrap(), 1, &["config.json"]),
    ("half the weights", |w| truncate(w, "base/model.safetensors", 50), 1, &["model.safetensors", "damaged"]),
    ("no header", |w| truncate(w, "base/model.safetensors", 0), 1, &["model.safetensors"]),
    (
        "other shapes",
        |w| replace(w, "base/config.json", "\"intermediate_size\": 24", "\"intermediate_size\": 32"),
        1,
        &["mlp", "expected"],
    ),
    ("another family", |w| replace(w, "base/config.json", "\"llama\"", "\"mamba\""), 1, &["mamba"]),
    ("damaged tokenizer", |w| truncate(w, "base/tokenizer.json", 60), 1, &["tokenizer.json"]),
    (
        "no tokenizer for text",
        |w| std::fs::remove_file(w.path("base/tokenizer.json")).unwrap(),
        1,
        &["tokenizer"],
    ),
    (
        "row not UTF-8",
        |w| drop(w.write("rows.jsonl", b"{\"text\": \"good\"}\n{\"text\": \"\xff\xfe\"}\n")),
        1,
        &["rows.jsonl:2", "UTF-8"],
    ),
    (
        "row not JSON",
        |w| drop(w.write("rows.jsonl", "{\"text\": \"good\"}\n{\"text\": \n")),
        1,
        &["rows.jsonl:2"],
    ),
    (
        "row of no kind",
        |w| drop(w.write("rows.jsonl", "{\"question\": \"?\"}\n")),
        1,
        &["rows.jsonl:1", "question"],
    ),
    ("no rows", |w| drop(w.write("rows.jsonl", "")), 1, &["rows.jsonl"]),
    ("blank lines", |w| drop(w.write("rows.jsonl", "\n\n\n")), 1, &["rows.jsonl"]),
    (
        "nothing supervised",
        |w| drop(w.write("rows.jsonl", "{\"input_ids\": [5, 6], \"labels\": [-100, -100]}\n".repeat(9))),
        1,
        &["no trained token"],
    ),
    (
        "a token too far",
        |w| drop(w.write("rows.jsonl", "{\"input_ids\": [5, 40000]}\n".repeat(9))),
        1,
        &["40000", "rows.jsonl"],
    ),
    (
        "no such module",
        |w| replace(w, "run.toml", "r = 4", "target_modules = [\"query\"]"),
        2,
        &["query", "q_proj"],
    ),
    ("no such layer", |w| replace(w, "run.toml", "r = 4", "layers_to_transform = [9]"), 2, &["9"]),
    ("no such adapter", |w| replace(w, "run.toml", "r = 4", "init = \"nowhere\""), 2, &["nowhere"]),
    (
        "adapter of another model",
        |w| replace(w, "run.toml", "r = 4", &format!("init = {:?}", golden("gqa_tied/adapter"))),
        1,
        &["lora_A"],
    ),
];

#[test]
fn bad_input_is_refused_clearly_and_nothing_is_written() {
    let whole = workspace();
    for (what, damage, code, says) in BROKEN {
        let workspace = copy(&whole);
        damage(&workspace);
        let before = snapshot(&workspace.path(""));
        for command in ["train", "check"] {
            let mut arguments = vec![command, "run.toml"];
            if command == "train" {
                arguments.extend(["--run-dir", "run"]);
            }
            let outcome = workspace.run(&arguments);
            let streams =
                format!("{what}: {command}\nstdout:\n{}\nstderr:\n{}", outcome.stdout, outcome.stderr);
            assert_eq!(outcome.code, *code, "{streams}");
            for part in *says {
                assert!(outcome.stderr.contains(part), "{part:?} is missing: {streams}");
            }
            assert!(outcome.stderr.contains("error"), "{streams}");
            assert!(
                !outcome.stderr.contains("internal") && !outcome.stderr.contains("panicked"),
                "{streams}"
            );
            assert!(command == "check" || outcome.stdout.is_empty(), "{streams}");
            assert!(snapshot(&workspace.path("")) == before, "files changed: {streams}");
        }
    }
}

fn copy(from: &Workspace) -> Workspace {
    let to = Workspace::new();
    for (path, bytes) in snapshot(&from.path("")) {
        to.write(path.to_str().unwrap(), bytes);
    }
    to
}

#[test]
fn check_says_what_is_there_or_lists_every_problem() {
    let workspace = workspace();
    let outcome = workspace.run(&["check", "run.toml"]).exits(0);
    for part in [
        "configuration",
        "is valid",
        "parameters",
        "14 layers",
        "16 rows",
        "4 rows",
        "supervised",
        "all good",
    ] {
        assert!(outcome.stdout.contains(part), "{part:?} is not in {}", outcome.stdout);
    }
    assert_silent(&outcome.stderr);
    truncate(&workspace, "base/model.safetensors", 50);
    workspace.write("rows.jsonl", "[1, 2]\n");
    workspace.run(&["check", "run.toml"]).exits(1).says(&["model.safetensors", "rows.jsonl:1", "2 problems"]);
}

#[test]
fn tokenized_rows_need_no_tokenizer() {
    let workspace = Workspace::new();
    let text = CONFIG
        .replace("\"base\"", &format!("{:?}", golden("gqa_tied/base")))
        .replace("\"rows.jsonl\"", &format!("{:?}", golden("gqa_tied/rows.jsonl")))
        .replace("r = 4", &format!("init = {:?}", golden("gqa_tied/adapter")));
    workspace.write("run.toml", text);
    let outcome = workspace.run(&["check", "run.toml"]).exits(0);
    // Rank 3 comes from the adapter: 2 layers of 3 * (64 + 48 + 48 + 64 + 80 + 80 + 80).
    assert!(outcome.stdout.contains("14 layers, 2784 parameters"), "{}", outcome.stdout);
    workspace.run(&["train", "run.toml", "--run-dir", "run"]).exits(0);
    let plan = workspace.run(&["plan", "run.toml", "--json"]).exits(0);
    let plan: Value = serde_json::from_str(&plan.stdout).unwrap();
    assert_eq!(plan["memory"]["trained"], 2784 * 4);
}

#[test]
fn plan_shows_a_step_without_loading_a_weight() {
    let workspace = workspace();
    let outcome = workspace.run(&["plan", "run.toml"]).exits(0);
    for part in
        ["4 rows x 64 tokens", "simplify", "kernels in", "GFLOP", "weights", "trained", "optimizer", "total"]
    {
        assert!(outcome.stdout.contains(part), "{part:?} is not in {}", outcome.stdout);
    }
    assert_silent(&outcome.stderr);

    let plan = |arguments: &[&str]| -> Value {
        let outcome = workspace.run(&[&["plan", "run.toml", "--json"], arguments].concat()).exits(0);
        serde_json::from_str(&outcome.stdout).unwrap()
    };
    let small = plan(&[]);
    let memory = &small["memory"];
    let number = |name: &str| memory[name].as_u64().unwrap();
    let parts = ["weights", "packed_weights", "trained", "optimizer", "gradients", "arena"];
    assert_eq!(number("total"), parts.iter().map(|part| number(part)).sum::<u64>());
    assert_eq!(number("optimizer"), 2 * number("trained"));
    assert!(number("arena_lower_bound") <= number("arena"));
    let dispatched: u64 =
        small["kernels"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(small["operations"].as_u64().unwrap(), dispatched);

    let large = plan(&["--sequence", "128", "--set", "train.batch_size=8"]);
    assert_eq!((large["rows"].as_u64(), large["sequence"].as_u64()), (Some(8), Some(128)));
    assert!(large["memory"]["arena"].as_u64() > memory["arena"].as_u64());
    assert!(large["flops"].as_f64() > small["flops"].as_f64());

    // Headers are enough: zeroed weights give the same plan.
    let path = workspace.path("base/model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[header..].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(plan(&[])["memory"], small["memory"]);
    workspace.run(&["plan", "run.toml", "--set", "train.batch_size=0"]).exits(2).says(&["batch_size"]);
    workspace.run(&["plan", "absent.toml"]).exits(2).says(&["absent.toml"]);
}

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

/// The prediction for the last of `ids`, [vocab].
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
    let logits = hidden.linear(&model.decoder.head(&parameters));
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

    let open = |name: &str| OpenModel::named(workspace.path(name).to_str().unwrap()).unwrap();
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

#[test]
fn config_describes_and_resolves() {
    let workspace = workspace();
    let outcome = workspace.run(&["config", "schema"]).exits(0);
    assert_silent(&outcome.stderr);
    let schema: Value = serde_json::from_str(&outcome.stdout).unwrap();
    for section in ["model", "data", "adapter", "optimizer", "schedule", "train", "log"] {
        assert!(schema["properties"][section].is_object(), "{section}");
    }
    let shown = workspace.run(&["config", "show", "run.toml", "--set", "adapter.r=6"]).exits(0);
    assert_silent(&shown.stderr);
    let resolved: toml::Table = shown.stdout.parse().unwrap();
    assert_eq!(resolved["adapter"]["r"].as_integer(), Some(6));
    assert_eq!(resolved["log"]["logging_steps"].as_integer(), Some(1), "defaults are filled in");
    workspace.write("resolved.toml", &shown.stdout);
    assert_eq!(workspace.run(&["config", "show", "resolved.toml"]).exits(0).stdout, shown.stdout);
    replace(&workspace, "run.toml", "max_steps", "max_step");
    let outcome =
        workspace.run(&["config", "show", "run.toml"]).exits(2).says(&["max_step", "max_steps", "run.toml"]);
    assert_silent(&outcome.stdout);
}

#[test]
fn usage_errors_exit_with_2_and_help_with_0() {
    let workspace = workspace();
    let commands: [&[&str]; 8] = [
        &[],
        &["teach"],
        &["train"],
        &["train", "run.toml", "--frobnicate"],
        &["train", "run.toml", "--set", "train.batch_size"],
        &["train", "run.toml", "--max-steps", "0", "--run-dir", "run"],
        &["generate", "--model", "base"],
        &["merge", "--model", "base"],
    ];
    for arguments in commands {
        let outcome = workspace.run(arguments).exits(2);
        assert_silent(&outcome.stdout);
        assert!(!outcome.stderr.is_empty());
    }
    assert!(!workspace.path("run").exists());
    let commands = ["train", "plan", "check", "generate", "merge", "config"];
    let help = workspace.run(&["--help"]).exits(0);
    assert!(commands.iter().all(|command| help.stdout.contains(command)), "{}", help.stdout);
    for command in commands {
        let help = workspace.run(&[command, "--help"]).exits(0);
        assert!(help.stdout.contains("Usage"), "{}", help.stdout);
        assert_silent(&help.stderr);
    }
    assert!(workspace.run(&["--version"]).exits(0).stdout.starts_with("lazytune "));
}
