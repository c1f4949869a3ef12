//! A run that is killed or interrupted, and resumed, ends with the bits of one that never stopped.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::Random;
use support::workspace::{Outcome, Workspace, golden, snapshot};

const STEPS: usize = 90;

/// Rows of different lengths; some must be left out of every window's end.
fn rows(count: usize) -> String {
    let row = |row: usize| {
        let ids: Vec<usize> = (0..5 + row * 7 % 23).map(|at| (at * 13 + row * 5) % 60 + 3).collect();
        json!({ "input_ids": ids }).to_string() + "\n"
    };
    (0..count).map(row).collect()
}

/// Everything that a checkpoint has to remember matters: dropout, row order, micro-batches, a schedule, evaluations.
fn workspace() -> Workspace {
    let workspace = Workspace::new();
    workspace.write("rows.jsonl", rows(23));
    workspace.write("held-out.jsonl", rows(4));
    let text = format!(
        "[model]\npath = {:?}\nthreads = 2\n[data]\ntrain = [\"rows.jsonl\"]\nvalidation = [\"held-out.jsonl\"]\n\
         max_length = 32\n[adapter]\nr = 4\ndropout = 0.1\n[optimizer]\nlearning_rate = 2e-3\nweight_decay = 0.01\n\
         [schedule]\nname = \"cosine\"\nwarmup_steps = 5\n[train]\nbatch_size = 2\ngradient_accumulation_steps = 2\n\
         max_steps = {STEPS}\nsave_steps = 3\neval_steps = 10\nseed = 11\n",
        golden("gqa_tied/base")
    );
    workspace.write("run.toml", text);
    workspace
}

/// Steps and evaluations without what a clock or the number of processes decides.
fn metrics(run: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let measured = ["_ms", "_seconds", "_hits", "_misses", "tokens_per_second"];
    let timeless = |line: &str| {
        let mut line: serde_json::Map<String, Value> = serde_json::from_str(line).unwrap();
        line.retain(|key, _| !measured.iter().any(|end| key.ends_with(end)));
        ["step", "evaluation"].iter().any(|kind| line["event"] == *kind).then_some(Value::Object(line))
    };
    text.lines().filter_map(timeless).collect()
}

/// Weights, optimizer state, position and metrics of a finished run.
fn result(run: &Path) -> (Vec<Vec<u8>>, Vec<Value>) {
    let files = ["adapter/adapter_model.safetensors", "adapter/adapter_config.json"].map(str::to_owned);
    let state = ["optimizer.safetensors", "state.json"].map(|name| format!("checkpoint-{STEPS}/{name}"));
    let read = |name: &String| std::fs::read(run.join(name)).unwrap();
    (files.iter().chain(&state).map(read).collect(), metrics(run))
}

#[track_caller]
fn assert_equal(run: &Path, expected: &(Vec<Vec<u8>>, Vec<Value>)) {
    let found = result(run);
    assert_eq!(found.1, expected.1, "metrics differ");
    assert!(found.0 == expected.0, "weights or states differ in their bits");
    let hidden = |name: &std::ffi::OsString| name.to_string_lossy().starts_with('.');
    let left: Vec<_> =
        std::fs::read_dir(run).unwrap().map(|entry| entry.unwrap().file_name()).filter(hidden).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

/// Waits until `ready` holds of a run's folder; panics if the process ends before.
fn wait(child: &mut Child, run: &Path, ready: impl Fn(&Path) -> bool) {
    let start = Instant::now();
    while !ready(run) {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before it could be stopped");
        assert!(start.elapsed() < Duration::from_secs(60), "the run hangs");
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn has_checkpoint(run: &Path, at_least: u64) -> bool {
    let Ok(entries) = std::fs::read_dir(run) else { return false };
    let step = |entry: std::fs::DirEntry| {
        entry.file_name().to_str()?.strip_prefix("checkpoint-")?.parse::<u64>().ok()
    };
    entries.flatten().filter_map(step).any(|step| step >= at_least)
}

fn is_saving(run: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(run) else { return false };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with(".tmp-checkpoint"))
}

#[test]
fn a_killed_run_ends_with_the_same_bits() {
    check_kills(&workspace(), 3);
}

#[test]
fn a_killed_run_over_streamed_rows_ends_with_the_same_bits() {
    let workspace = workspace();
    workspace.write("more.jsonl", rows(14));
    let text = std::fs::read_to_string(workspace.path("run.toml")).unwrap();
    let streamed =
        "train = [\"rows.jsonl\", \"more.jsonl\"]\nstreaming = true\nshuffle_buffer = 9\npacking = true";
    workspace.write("run.toml", text.replace("train = [\"rows.jsonl\"]", streamed));
    check_kills(&workspace, 2);
}

fn check_kills(workspace: &Workspace, rounds: usize) {
    workspace.run(&["train", "run.toml", "--run-dir", "whole"]).exits(0);
    let expected = result(&workspace.path("whole"));
    assert_eq!(expected.1.len(), STEPS + STEPS / 10);
    let mut random = Random::new(5);
    for round in 0..rounds {
        let name = format!("killed-{round}");
        let run = workspace.path(&name);
        let mut arguments = vec!["train", "run.toml", "--run-dir", &name];
        for stop in 1..=3u64 {
            let mut child = workspace.start(&arguments);
            wait(&mut child, &run, |run| has_checkpoint(run, stop * 18));
            if stop == 2 {
                wait(&mut child, &run, is_saving);
            }
            std::thread::sleep(Duration::from_micros(random.below(12_000) as u64));
            child.kill().unwrap();
            assert!(!child.wait().unwrap().success(), "the run was over before it was killed");
            arguments.truncate(4);
            arguments.push("--resume");
        }
        workspace.run(&arguments).exits(0).says(&["resuming after step"]);
        assert_equal(&run, &expected);
    }
}

fn send(signal: &str, child: &Child) {
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

fn end(child: Child) -> Outcome {
    let output = child.wait_with_output().unwrap();
    Outcome {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Starts a command whose streams are kept.
fn start(workspace: &Workspace, arguments: &[&str]) -> Child {
    let mut command = workspace.command(arguments);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_saves_exits_130_and_ends_with_the_same_bits() {
    let workspace = workspace();
    workspace.run(&["train", "run.toml", "--run-dir", "whole", "--quiet"]).exits(0);
    let expected = result(&workspace.path("whole"));
    for signal in ["-INT", "-TERM"] {
        let name = format!("stopped{signal}");
        let run = workspace.path(&name);
        let mut child = start(&workspace, &["train", "run.toml", "--run-dir", &name]);
        wait(&mut child, &run, |run| has_checkpoint(run, 12));
        send(signal, &child);
        let outcome = end(child).exits(130).says(&["interrupted", "--resume"]);
        assert!(outcome.stdout.is_empty(), "{}", outcome.stdout);
        assert!(!run.join("adapter").exists());
        let last = metrics(&run).last().unwrap()["step"].as_u64().unwrap();
        let (saved, _) = lazytune::checkpoint::list(&run).unwrap().pop().unwrap();
        assert_eq!(saved, last, "the step that was finished is saved");
        workspace.run(&["train", "run.toml", "--run-dir", &name, "--resume"]).exits(0);
        assert_equal(&run, &expected);
    }
}

#[cfg(unix)]
#[test]
fn a_second_interrupt_ends_the_process_at_once() {
    let workspace = workspace();
    workspace.write("rows.jsonl", rows(40_000));
    // One step over all rows takes seconds.
    let sizes = ["train.batch_size=400", "train.gradient_accumulation_steps=200"];
    let mut arguments = vec!["train", "run.toml", "--run-dir", "run"];
    sizes.iter().for_each(|size| arguments.extend(["--set", size]));
    let mut child = start(&workspace, &arguments);
    wait(&mut child, &workspace.path("run"), |run| run.join("metrics.jsonl").exists());
    std::thread::sleep(Duration::from_millis(150));
    send("-INT", &child);
    std::thread::sleep(Duration::from_millis(50));
    assert!(child.try_wait().unwrap().is_none(), "the first interrupt waits for the step");
    send("-INT", &child);
    let second = Instant::now();
    end(child).exits(130);
    assert!(second.elapsed() < Duration::from_secs(1));
    assert!(!has_checkpoint(&workspace.path("run"), 0), "nothing was saved");
}

/// Runs six steps and returns the workspace with the run's folder `run`.
fn short_run() -> Workspace {
    let workspace = workspace();
    workspace.run(&["train", "run.toml", "--run-dir", "run", "--max-steps", "6"]).exits(0);
    workspace
}

const RESUME: [&str; 7] = ["train", "run.toml", "--run-dir", "run", "--max-steps", "9", "--resume"];

#[test]
fn a_damaged_checkpoint_is_refused_and_nothing_is_overwritten() {
    let workspace = short_run();
    let checkpoint = workspace.path("run/checkpoint-6");
    for name in ["optimizer.safetensors", "state.json", "adapter_model.safetensors", "checksums.json"] {
        let path = checkpoint.join(name);
        let whole = std::fs::read(&path).unwrap();
        let half = whole[..whole.len() / 2].to_vec();
        let mut flipped = whole.clone();
        flipped[whole.len() * 2 / 3] ^= 1;
        for damaged in [half, flipped] {
            std::fs::write(&path, &damaged).unwrap();
            let before = snapshot(&workspace.path("run"));
            let outcome = workspace.run(&RESUME).exits(1).says(&["checkpoint-6", name]);
            assert!(outcome.stdout.is_empty() && !outcome.stderr.contains("internal"), "{}", outcome.stderr);
            assert!(snapshot(&workspace.path("run")) == before, "{name}: the run's folder was changed");
        }
        std::fs::remove_file(&path).unwrap();
        workspace.run(&RESUME).exits(1).says(&["checkpoint-6", name]);
        std::fs::write(&path, whole).unwrap();
    }
    workspace.run(&RESUME).exits(0);
}

#[test]
fn a_run_is_resumed_only_with_what_it_was_started_with() {
    let workspace = short_run();
    let before = snapshot(&workspace.path("run"));
    let refused = |change: &str, code: i32, says: &[&str]| {
        let arguments: Vec<&str> = RESUME.into_iter().chain(["--set", change]).collect();
        workspace.run(&arguments).exits(code).says(says);
        assert!(snapshot(&workspace.path("run")) == before, "{change}: the run's folder was changed");
    };
    refused("train.seed=12", 2, &["train.seed"]);
    refused("data.shuffle=false", 2, &["data.shuffle"]);
    refused("train.batch_size=3", 2, &["train.batch_size"]);
    refused("adapter.r=5", 1, &["lora_A", "configuration"]);
    refused("adapter.target_modules=[\"q_proj\", \"embed_tokens\"]", 1, &["lora_embedding"]);
    workspace.write("rows.jsonl", rows(24));
    workspace.run(&RESUME).exits(2).says(&["training data"]);
}

#[test]
fn resuming_needs_a_checkpoint() {
    let workspace = workspace();
    workspace
        .run(&["train", "run.toml", "--run-dir", "run", "--resume"])
        .exits(2)
        .says(&["no checkpoint", "run"]);
    workspace
        .run(&["train", "run.toml", "--run-dir", "run", "--resume", "absent"])
        .exits(2)
        .says(&["absent"]);
    assert!(!workspace.path("run").exists());
}

#[test]
fn an_older_checkpoint_leads_to_the_same_end() {
    let workspace = workspace();
    let arguments = ["train", "run.toml", "--run-dir", "run", "--set", "train.save_total_limit=0"];
    workspace.run(&arguments).exits(0);
    let expected = result(&workspace.path("run"));
    for step in [3, 45, STEPS] {
        let older = format!("run/checkpoint-{step}");
        workspace.run(&[&arguments[..], &["--resume", &older]].concat()).exits(0);
        assert_equal(&workspace.path("run"), &expected);
    }
}
