//! Commands of the real binary, with good and with bad input: exit codes, streams, and what stays untouched.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use std::path::Path;

use serde_json::Value;
use support::prepared::{CONFIG, assert_silent, replace, train, truncate, workspace};
use support::workspace::{Workspace, golden, snapshot, steps};

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
    // Without the device, too.
    let metal = &plan(&["--device", "metal"])["metal"];
    assert_eq!(metal["dispatches"]["command_buffers"], 1);
    assert_eq!(metal["dispatches"]["host_waits"], 0);
    assert!(metal["dispatches"]["kernels"].as_u64() < metal["one_by_one"]["plain"].as_u64());
    assert!(plan(&["--device", "cuda"])["metal"].is_null());

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
    let commands = ["train", "plan", "bench", "check", "generate", "merge", "config"];
    let help = workspace.run(&["--help"]).exits(0);
    assert!(commands.iter().all(|command| help.stdout.contains(command)), "{}", help.stdout);
    for command in commands {
        let help = workspace.run(&[command, "--help"]).exits(0);
        assert!(help.stdout.contains("Usage"), "{}", help.stdout);
        assert_silent(&help.stderr);
    }
    assert!(workspace.run(&["--version"]).exits(0).stdout.starts_with("lazytune "));
}
