//! Runs that are steered from outside, and what other processes see of them.

#![cfg(unix)]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use support::peer::{Guard, Peer, wait_until};
use support::prepared::{replace, workspace};
use support::workspace::{Workspace, steps, tensors};

/// A run that only ends when it is asked to.
const ENDLESS: [&str; 10] = [
    "train",
    "run.toml",
    "--run-dir",
    "run",
    "--max-steps",
    "900000",
    "--set",
    "train.save_steps=900000",
    "--set",
    "train.eval_steps=900000",
];

fn start(workspace: &Workspace, more: &[&str]) -> Guard {
    Guard(workspace.start(&[&ENDLESS[..], more].concat()))
}

fn exit_code(guard: &mut Guard) -> i32 {
    guard.0.wait().unwrap().code().unwrap_or(-1)
}

fn weights(folder: &Path) -> Vec<Vec<f32>> {
    tensors(&folder.join("adapter_model.safetensors")).into_values().map(|(_, values)| values).collect()
}

#[test]
fn a_run_obeys_between_steps_and_remembers_when_it_is_resumed() {
    let workspace = workspace();
    let run = workspace.path("run");
    let mut process = start(&workspace, &[]);
    let mut peer = Peer::attach(&run);
    let mode = std::fs::metadata(run.join("control.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    peer.ask("pause", None);
    let step = peer.event("paused")["step"].as_u64().unwrap();
    let written = steps(&run.join("metrics.jsonl")).len();
    assert_eq!(written as u64, step);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(steps(&run.join("metrics.jsonl")).len(), written, "a paused run goes on");

    peer.ask("checkpoint", None);
    assert_eq!(peer.event("saved")["step"], step);
    assert!(run.join(format!("checkpoint-{step}/adapter_model.safetensors")).exists());
    peer.ask("evaluate", None);
    assert_eq!(peer.event("evaluation")["best"], true);
    peer.ask("sample", Some(json!("Define love")));
    assert_eq!(peer.event("sample")["prompt"], "Define love");
    let before = steps(&run.join("metrics.jsonl")).last().unwrap()["learning_rate"].as_f64().unwrap();
    peer.ask("scale_learning_rate", Some(json!(0.25)));
    let changed = peer.event("learning_rate");
    assert_eq!(changed["scale"], 0.25);
    assert!(changed["learning_rate"].as_f64().unwrap() < before * 0.3);

    for nonsense in [r#"{"command":"scale_learning_rate","value":0}"#, r#"{"command":"explode"}"#, "}", ""] {
        let answer = peer.send(nonsense);
        assert!(answer["ok"] == false && answer["error"].is_string(), "{nonsense}: {answer}");
    }
    let mut other = Peer::attach(&run);
    other.ask("resume", None);
    peer.event("resumed");
    let next = peer.event("step");
    assert_eq!(next["step"], step + 1);
    assert_eq!(next["learning_rate"], changed["learning_rate"]);
    other.event("step");

    peer.ask("quit", Some(json!({ "stop": true })));
    assert_eq!(exit_code(&mut process), 130);
    assert!(!run.join("control.sock").exists());

    // The run goes on with the changed rate, and ends with the best checkpoint as its result.
    let mut process = start(&workspace, &["--resume"]);
    let mut peer = Peer::attach(&run);
    peer.event("step");
    let lines = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let told = lines.lines().filter(|line| line.contains(r#""event":"learning_rate""#)).count();
    assert_eq!(told, 2, "the rate is told again");
    let rate = steps(&run.join("metrics.jsonl")).last().unwrap()["learning_rate"].as_f64().unwrap();
    assert!(rate < before * 0.3, "{rate} {before}");
    peer.ask("stop_keep_best", None);
    assert_eq!(exit_code(&mut process), 0);
    let best = weights(&run.join(format!("checkpoint-{step}")));
    assert!(weights(&run.join("adapter")) == best, "the result is not the best checkpoint's");
    let last = steps(&run.join("metrics.jsonl")).last().unwrap()["step"].as_u64().unwrap();
    assert!(weights(&run.join(format!("checkpoint-{last}"))) != best);
    let state: Value = serde_json::from_slice(
        &std::fs::read(run.join(format!("checkpoint-{last}/trainer_state.json"))).unwrap(),
    )
    .unwrap();
    assert_eq!(state["best_global_step"], step);
    assert_eq!(state["log_history"].as_array().unwrap().last().unwrap()["step"], last);
}

#[test]
fn runs_are_listed_with_what_became_of_them() {
    let workspace = workspace();
    let train = |name: &str, more: &[&str]| {
        let arguments = ["train", "run.toml", "--quiet", "--run-dir", name];
        workspace.run(&[&arguments[..], more].concat())
    };
    train("runs/done", &[]).exits(0);
    train("runs/broken", &["--set", "optimizer.learning_rate=1e30"]).exits(1);
    workspace.write("runs/notes/readme.txt", "not a run");
    let mut endless = ENDLESS;
    endless[3] = "runs/killed";
    let mut process = Guard(workspace.start(&endless));
    Peer::attach(&workspace.path("runs/killed")).event("step");
    let states = || -> Vec<(String, String)> {
        let outcome = workspace.run(&["runs", "--json"]).exits(0);
        let runs: Vec<Value> = serde_json::from_str(&outcome.stdout).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let mut states: Vec<_> = runs.iter().map(|run| (text(&run["name"]), text(&run["state"]))).collect();
        states.sort();
        states
    };
    let expected = |killed: &str| {
        [("broken", "failed"), ("done", "finished"), ("killed", killed)]
            .map(|(name, state)| (name.to_owned(), state.to_owned()))
    };
    assert_eq!(states(), expected("running"));
    let refused = workspace.run(&["train", "run.toml", "--run-dir", "runs/killed", "--resume"]);
    refused.exits(2).says(&["another process trains in", "lazytune watch"]);
    process.0.kill().unwrap();
    process.0.wait().unwrap();
    assert_eq!(states(), expected("interrupted"));

    let table = workspace.run(&["runs"]).exits(0).stdout;
    let done = table.lines().find(|line| line.starts_with("done")).unwrap();
    assert!(done.contains("finished") && done.contains("8/8") && done.contains("base"), "{table}");
    workspace.run(&["runs", "runs/done"]).exits(0);
    workspace.run(&["runs", "absent"]).exits(2).says(&["there is no folder absent"]);

    let both = workspace.run(&["compare", "runs/done", "runs/killed"]).exits(0).stdout;
    assert_eq!(both.lines().count(), 3, "{both}");
    workspace.run(&["compare", "runs/done", "runs/notes"]).exits(2).says(&["not the folder of a run"]);
}

#[test]
fn a_past_run_is_read_however_its_file_ends() {
    let workspace = workspace();
    workspace.run(&["train", "run.toml", "--run-dir", "run", "--quiet"]).exits(0);
    workspace.run(&["watch", "run"]).exits(0).says(&[
        "8 steps, ",
        "step 1/8",
        "step 8/8",
        "the result is in",
    ]);
    let path = workspace.path("run/metrics.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let newer = "{\"event\":\"teleported\",\"step\":9}\n{\"event\":\"step\",\"step\":9,\"aura\":1}\n";
    std::fs::write(&path, format!("{text}{newer}not json\n\u{0}\n{}", &text[..text.len() / 3])).unwrap();
    workspace.run(&["watch", "run"]).exits(0).says(&[
        "step 9/8",
        "1 lines",
        "newer version",
        "2 lines",
        "damaged",
    ]);
    workspace.run(&["runs", "run"]).exits(0);
    std::fs::write(&path, "").unwrap();
    workspace.run(&["watch", "run"]).exits(0);
    workspace.run(&["watch", "base"]).exits(2).says(&["not the folder of a run"]);
    workspace.run(&["watch", "absent"]).exits(2).says(&["does not exist"]);
}

#[test]
fn a_detached_run_goes_on_without_its_starter() {
    let workspace = workspace();
    let outcome = workspace.run(&[&ENDLESS[..], &["--detach"]].concat()).exits(0).says(&["lazytune watch"]);
    let run = workspace.path("run");
    assert_eq!(Path::new(outcome.stdout.trim()), run);
    let mut peer = Peer::attach(&run);
    let watching = workspace.command(&["watch", "run"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    peer.event("step");
    peer.ask("quit", Some(json!({ "stop": true })));
    let watched = watching.wait_with_output().unwrap();
    assert!(watched.status.success());
    assert!(String::from_utf8(watched.stderr).unwrap().contains("everything is saved"));
    wait_until(|| !run.join("control.sock").exists(), "the process ends");
    assert!(std::fs::read_to_string(run.join("log.txt")).unwrap().contains("interrupted"));

    replace(&workspace, "run.toml", "rows.jsonl", "absent.jsonl");
    let failed = workspace.run(&["train", "run.toml", "--run-dir", "other", "--detach"]);
    failed.exits(2).says(&["absent.jsonl"]);
    assert!(!workspace.path("other").exists());
}
