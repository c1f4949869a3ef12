//! What a run writes down for others: metrics.jsonl, TensorBoard's files, Prometheus' text.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use serde_json::Value;
use support::prepared::workspace;
use support::workspace::{field, steps};

fn lines(run: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn of_kind<'a>(lines: &'a [Value], kind: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["event"] == kind).collect()
}

#[test]
fn metrics_tell_the_whole_run() {
    let workspace = workspace();
    let more =
        ["--set", "train.sample_prompts=[\"Define war\"]", "--set", "train.gradient_accumulation_steps=2"];
    workspace.run(&[&["train", "run.toml", "--run-dir", "run"][..], &more].concat()).exits(0);
    let lines = lines(&workspace.path("run"));
    assert_eq!(lines[0]["event"], "started");
    assert_eq!(lines.last().unwrap()["event"], "finished");
    let started = &lines[0];
    assert_eq!((started["run"].as_str(), started["total_steps"].as_u64()), (Some("run"), Some(8)));
    assert!(started["total_epochs"].as_f64().unwrap() >= 4.0);
    let kinds: BTreeSet<&str> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    let expected = [
        "evaluation",
        "finished",
        "layers",
        "memory",
        "planned",
        "profile",
        "sample",
        "saved",
        "started",
        "step",
    ];
    assert!(expected.iter().all(|kind| kinds.contains(kind)), "{kinds:?}");

    for planned in of_kind(&lines, "planned") {
        let widths: u64 =
            planned["widths"].as_array().unwrap().iter().map(|width| width.as_u64().unwrap()).sum();
        assert_eq!(planned["operations"].as_u64(), Some(widths));
        assert!(
            !planned["passes"].as_array().unwrap().is_empty() && planned["plan_ms"].as_f64().unwrap() > 0.0
        );
    }
    let steps = of_kind(&lines, "step");
    assert_eq!(steps.len(), 8);
    let (mut before, mut tokens) = (0.0, 0);
    for step in &steps {
        let stages = ["forward_ms", "backward_ms", "optimizer_ms"].map(|stage| step[stage].as_f64().unwrap());
        assert!(stages.iter().all(|&ms| ms > 0.0), "{step}");
        assert!(stages.iter().sum::<f64>() <= step["step_ms"].as_f64().unwrap(), "{step}");
        let elapsed = step["elapsed_seconds"].as_f64().unwrap();
        assert!(elapsed > before);
        before = elapsed;
        tokens += step["tokens"].as_u64().unwrap();
        assert_eq!(step["tokens_seen"].as_u64(), Some(tokens));
        assert!(step["rows_seen"].as_u64().unwrap() <= started["rows"].as_u64().unwrap());
    }
    assert!(steps[7]["plan_hits"].as_u64() > steps[1]["plan_hits"].as_u64());
    assert!(steps.iter().any(|step| step["eval_ms"].as_f64().unwrap() > 0.0));
    assert!(steps.iter().any(|step| step["checkpoint_ms"].as_f64().unwrap() > 0.0));

    let profile = of_kind(&lines, "profile")[0];
    assert_eq!(profile["step"], 2);
    let kinds = profile["kinds"].as_array().unwrap();
    assert!(kinds.iter().any(|kind| kind["kind"] == "AdamW" && kind["calls"].as_u64().unwrap() > 0));
    let layers = of_kind(&lines, "layers")[0]["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 2);
    for layer in layers {
        assert!(layer["norm"].as_f64().unwrap() > 0.0);
        let ratio = layer["update_ratio"].as_f64().unwrap();
        assert!(ratio > 0.0 && ratio < 1.0, "{ratio}");
    }
    let memory = of_kind(&lines, "memory")[0];
    assert!(memory["kinds"].as_array().unwrap().iter().any(|kind| kind["kind"] == "activations"));
    #[cfg(target_os = "linux")]
    assert!(memory["process_bytes"].as_u64().unwrap() > 1 << 20);
}

#[test]
fn a_divergence_names_its_step_and_rows() {
    let workspace = workspace();
    let rate = ["--set", "optimizer.learning_rate=1e30"];
    workspace.run(&[&["train", "run.toml", "--run-dir", "run"][..], &rate].concat()).exits(1);
    let lines = lines(&workspace.path("run"));
    let not_finite = of_kind(&lines, "not_finite")[0];
    assert!(not_finite["rows"][0].as_str().unwrap().contains("rows.jsonl:"));
    let failed = lines.last().unwrap();
    assert!(failed["event"] == "failed" && failed["hint"].as_str().unwrap().contains("learning_rate"));
    assert_eq!(not_finite["step"].as_u64().unwrap(), failed["step"].as_u64().unwrap() + 1);
}

#[test]
fn trainer_state_has_the_shape_of_hugging_face() {
    let workspace = workspace();
    workspace.run(&["train", "run.toml", "--run-dir", "run"]).exits(0);
    let state = std::fs::read(workspace.path("run/checkpoint-8/trainer_state.json")).unwrap();
    let state: Value = serde_json::from_slice(&state).unwrap();
    let expected = [
        ("eval_steps", 4),
        ("save_steps", 4),
        ("logging_steps", 1),
        ("train_batch_size", 4),
        ("max_steps", 8),
    ];
    for (name, value) in expected {
        assert_eq!(state[name], value, "{name}");
    }
    let history = state["log_history"].as_array().unwrap();
    assert_eq!(history.iter().filter(|row| row.get("loss").is_some()).count(), 8);
    assert_eq!(history.iter().filter(|row| row.get("eval_loss").is_some()).count(), 2);
    for row in history {
        assert!(row["step"].is_u64() && row["epoch"].is_number());
    }
}

/// The checksum of TFRecord files, bit by bit.
fn masked_crc(data: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    (!crc).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Fields of a protocol buffer: number, and bytes or the value's little-endian bytes.
fn fields(mut data: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let varint = |data: &mut &[u8]| {
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let byte = data[0];
            *data = &data[1..];
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    };
    let mut found = Vec::new();
    while !data.is_empty() {
        let key = varint(&mut data);
        let length = match key & 7 {
            0 => {
                found.push((key >> 3, varint(&mut data).to_le_bytes().to_vec()));
                continue;
            }
            1 => 8,
            2 => varint(&mut data) as usize,
            wire => {
                assert_eq!(wire, 5, "an unknown wire type");
                4
            }
        };
        found.push((key >> 3, data[..length].to_vec()));
        data = &data[length..];
    }
    found
}

/// Scalars by tag and step, and whether the file says that a session starts.
fn scalars(path: &Path) -> (BTreeMap<(String, u64), f32>, bool) {
    let bytes = std::fs::read(path).unwrap();
    let (mut rest, mut found, mut session) = (&bytes[..], BTreeMap::new(), false);
    while !rest.is_empty() {
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        assert_eq!(rest[8..12], masked_crc(&rest[..8]).to_le_bytes());
        let data = &rest[12..12 + length];
        assert_eq!(rest[12 + length..16 + length], masked_crc(data).to_le_bytes());
        rest = &rest[16 + length..];
        let event = fields(data);
        let step = event.iter().find(|(number, _)| *number == 2).unwrap().1[..].try_into().unwrap();
        session |= event.iter().any(|(number, log)| *number == 7 && log == &[8, 1]);
        for (_, summary) in event.iter().filter(|(number, _)| *number == 5) {
            for (_, value) in fields(summary) {
                let value = fields(&value);
                let tag = String::from_utf8(value[0].1.clone()).unwrap();
                let number = f32::from_le_bytes(value[1].1[..].try_into().unwrap());
                found.insert((tag, u64::from_le_bytes(step)), number);
            }
        }
    }
    (found, session)
}

#[test]
fn tensorboard_files_hold_the_same_numbers() {
    let workspace = workspace();
    workspace.run(&["train", "run.toml", "--run-dir", "run", "--max-steps", "4"]).exits(0);
    let board = workspace.path("run/tensorboard");
    let files =
        || -> BTreeSet<_> { std::fs::read_dir(&board).unwrap().map(|entry| entry.unwrap().path()).collect() };
    let first = files().into_iter().next().unwrap();
    let (found, session) = scalars(&first);
    assert!(!session);
    let lines = steps(&workspace.path("run/metrics.jsonl"));
    for (tag, name) in
        [("train/loss", "loss"), ("train/grad_norm", "grad_norm"), ("speed/step_ms", "step_ms")]
    {
        for (step, value) in field(&lines, name).into_iter().enumerate() {
            assert_eq!(found[&(tag.to_owned(), step as u64 + 1)], value as f32, "{tag} {step}");
        }
    }
    assert!(found.contains_key(&("eval/loss".to_owned(), 4)));
    workspace.run(&["train", "run.toml", "--run-dir", "run", "--resume"]).exits(0);
    let second = files().into_iter().find(|path| *path != first).unwrap();
    let (found, session) = scalars(&second);
    assert!(session && found.contains_key(&("train/loss".to_owned(), 8)));
    let off = ["train", "run.toml", "--run-dir", "off", "--set", "log.tensorboard=false"];
    workspace.run(&off).exits(0);
    assert!(!workspace.path("off/tensorboard").exists());
}

#[cfg(unix)]
#[test]
fn prometheus_scrapes_a_running_run_on_loopback() {
    use support::peer::{Guard, wait_until};
    let workspace = workspace();
    let run = workspace.path("run");
    let arguments = ["train", "run.toml", "--run-dir", "run", "--max-steps", "900000"];
    let _process = Guard(workspace.start(&[&arguments[..], &["--set", "log.prometheus_port=0"]].concat()));
    let text = || std::fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    wait_until(|| text().contains(r#""event":"memory""#), "the run has begun");
    let text = text();
    let address = text.split("http://").nth(1).unwrap().split('/').next().unwrap();
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let value = |name: &str| -> f64 {
        let line = answer.lines().find(|line| line.starts_with(&format!("lazytune_{name} "))).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(value("steps") >= 1.0 && value("loss") > 0.0 && value("process_resident_bytes") > 1e6);
    assert!(answer.contains("lazytune_run_state{state=\"running\"} 1"));

    let taken = format!("log.prometheus_port={}", address.rsplit(':').next().unwrap());
    let second = workspace.run(&["train", "run.toml", "--run-dir", "other", "--set", &taken]);
    second.exits(2).says(&["cannot listen on 127.0.0.1", "log.prometheus_port"]);
}
