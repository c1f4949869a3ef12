//! `lazytune bench` on the real binary, and the costs of a step that no machine's speed changes.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use std::path::Path;

use serde_json::{Value, json};
use support::prepared::{assert_silent, replace, workspace};
use support::workspace::{Workspace, field, snapshot, steps};

/// Largest counts for a step of the quickstart's model after the warm-up, whatever the machine.
const HEAP_ALLOCATIONS: u64 = 48;
const MINOR_PAGE_FAULTS: u64 = 16;
/// The batch whose costs are pinned.
const ROWS: usize = 4;
const SEQUENCE: usize = 128;

fn quickstart() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/quickstart.toml");
    path.to_str().unwrap().to_owned()
}

fn report(workspace: &Workspace, arguments: &[&str]) -> Value {
    let outcome = workspace.run(&[&["bench"], arguments, &["--json"]].concat()).exits(0);
    serde_json::from_str(&outcome.stdout).unwrap()
}

fn numbers(values: &Value) -> Vec<f64> {
    values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

#[track_caller]
fn assert_near(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-9 * expected.abs(), "{found} is not {expected}");
}

#[test]
fn the_figures_follow_from_each_other() {
    let workspace = Workspace::new();
    let quickstart = quickstart();
    let report = report(
        &workspace,
        &[&quickstart, "--set", "train.batch_size=1", "--steps", "5", "--warmup", "1", "--threads", "2"],
    );
    assert!(snapshot(&workspace.path("")).is_empty(), "a bench writes nothing");
    assert_eq!((report["threads"].as_u64(), report["rows"].as_u64()), (Some(2), Some(1)));
    let ms = numbers(&report["step_ms"]);
    assert_eq!((ms.len(), report["losses"].as_array().unwrap().len()), (6, 6));
    let mut timed = ms[1..].to_vec();
    timed.sort_by(f64::total_cmp);
    let at = |pointer: &str| report.pointer(pointer).and_then(Value::as_f64).unwrap();
    let p50 = at("/latency_ms/p50");
    assert_eq!([at("/latency_ms/min"), p50, at("/latency_ms/p99")], [timed[0], timed[2], timed[4]]);
    assert_near(at("/tokens_per_second"), at("/tokens_per_step") / p50 * 1e3);
    assert_near(at("/supervised_tokens_per_second"), at("/supervised_tokens_per_step") / p50 * 1e3);
    assert_near(at("/arithmetic/gflop_per_second"), at("/arithmetic/flop_per_step") / p50 * 1e-6);
    assert_near(at("/arithmetic/percent_of_peak"), 100.0 * at("/arithmetic/floor_ms") / p50);
    let peak = at("/arithmetic/peak_f32_gflop_per_second");
    assert_near(at("/arithmetic/floor_ms"), at("/arithmetic/needed_flop_per_step") / peak * 1e-6);
    assert!(at("/arithmetic/needed_flop_per_step") <= at("/arithmetic/flop_per_step") * 1.000_001);
    assert!(at("/arithmetic/gflop_per_second") < peak, "the step is faster than the peak of {peak}");

    let kinds = report["profile"]["kinds"].as_array().unwrap();
    let sum = |name: &str| kinds.iter().map(|kind| kind[name].as_f64().unwrap()).sum::<f64>();
    assert_eq!(sum("calls"), at("/plan/kernels"));
    assert_near(sum("gflop") * 1e9, at("/arithmetic/flop_per_step"));
    assert_near(sum("gb"), at("/traffic/gb_per_step"));
    let profiled = at("/profile/step_ms");
    assert!((0.5..=1.0).contains(&(sum("ms") / profiled)), "{} of {profiled} ms", sum("ms"));
    assert_near(sum("percent_of_step"), 100.0 * sum("ms") / profiled);
    assert_eq!(at("/caches/plan_cache_misses_after_warm_up"), 0.0);
    assert_eq!(at("/caches/tensor_cache_misses_after_warm_up"), 0.0);
    if cfg!(target_os = "linux") {
        assert!(at("/memory/process_peak_bytes") >= at("/memory/process_resident_bytes"));
        assert!(at("/memory/process_resident_bytes") > at("/memory/planned_bytes/arena"));
    }
}

#[test]
fn a_bench_runs_the_steps_of_a_training_run() {
    let workspace = workspace();
    let row = |row: usize| {
        let ids: Vec<usize> = (0..16).map(|position| 3 + (row * 7 + position * 5) % 200).collect();
        json!({"input_ids": ids}).to_string() + "\n"
    };
    workspace.write("rows.jsonl", (0..16).map(row).collect::<String>());
    replace(&workspace, "run.toml", "max_length = 64", "max_length = 16");
    replace(&workspace, "run.toml", "eval_steps = 4", "eval_steps = 0");
    replace(
        &workspace,
        "run.toml",
        "validation = \"auto\"\nvalidation_fraction = 0.2",
        "validation = \"none\"",
    );
    for windows in ["train.gradient_accumulation_steps=1", "train.gradient_accumulation_steps=2"] {
        let arguments = ["run.toml", "--set", windows];
        let report = report(&workspace, &[&arguments[..], &["--steps", "2", "--warmup", "1"]].concat());
        workspace.run(&[&["train"], &arguments[..], &["--run-dir", windows, "--quiet"]].concat()).exits(0);
        let trained = field(&steps(&workspace.path(windows).join("metrics.jsonl")), "loss");
        // Training takes windows of the epoch in order; a bench repeats those it took.
        assert_eq!(numbers(&report["losses"])[..2], trained[..2]);
        assert_eq!(report["notices"], json!([]));
    }
}

#[test]
fn the_frozen_prefix_is_timed_as_from_the_second_epoch_on() {
    let workspace = Workspace::new();
    let quickstart = quickstart();
    let flops = |size: &str| {
        let layers = "adapter.layers_to_transform=[5]";
        let sets = ["--set", layers, "--set", size, "--set", "train.batch_size=1"];
        let steps = ["--steps", "2", "--warmup", "1", "--threads", "2"];
        let report = report(&workspace, &[&[quickstart.as_str()], &sets[..], &steps[..]].concat());
        (report["arithmetic"]["flop_per_step"].as_f64().unwrap(), report["notices"].to_string())
    };
    let (whole, silent) = flops("train.frozen_prefix_cache=off");
    let (above, told) = flops("train.frozen_prefix_cache=64MiB");
    assert!(above < 0.9 * whole, "{above} of {whole}");
    let part = "rows in the frozen prefix cache";
    assert!(told.contains(part) && !silent.contains(part), "{told} {silent}");
}

#[test]
fn data_that_cannot_fill_a_batch_is_named() {
    let workspace = workspace();
    let bench = ["bench", "run.toml", "--steps", "1", "--warmup", "0", "--sequence", "96"];
    let outcome = workspace.run(&bench).exits(0).says(&["note:", "4 x 96 tokens", "data.packing=true"]);
    for part in
        ["latency", "tokens/s", "of the peak", "planned", "page faults", "caches", "operation", "% of step"]
    {
        assert!(outcome.stdout.contains(part), "{part:?} is not in {}", outcome.stdout);
    }
    let packed = [&bench[..], &["--set", "data.packing=true", "--set", "train.batch_size=1"]].concat();
    assert_silent(&workspace.run(&packed).exits(0).stderr);
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let workspace = workspace();
    let refused: [(&[&str], &str); 6] = [
        (&["--steps", "0"], "--steps"),
        (&["--steps", "1000001"], "--steps"),
        (&["--warmup=-1"], "--warmup"),
        (&["--sequence", "1"], "max_length"),
        (&["--threads", "0"], "threads"),
        (&["--set", "train.batch_size=0"], "batch_size"),
    ];
    for (arguments, part) in refused {
        let outcome = workspace.run(&[&["bench", "run.toml"], arguments].concat()).exits(2).says(&[part]);
        assert_silent(&outcome.stdout);
    }
    workspace.run(&["bench", "absent.toml"]).exits(2).says(&["absent.toml"]);
}

/// What the quickstart's step costs on every machine. After a change that is meant:
/// `INSTA_UPDATE=always cargo test --release --test bench`
#[test]
fn the_quickstart_step_costs_the_same_everywhere() {
    let workspace = Workspace::new();
    let quickstart = quickstart();
    let (rows, sequence) = (format!("train.batch_size={ROWS}"), SEQUENCE.to_string());
    let arguments = [&quickstart, "--set", rows.as_str(), "--sequence", &sequence];
    let plan = workspace.run(&[&["plan"], &arguments[..], &["--json"]].concat()).exits(0);
    let plan: Value = serde_json::from_str(&plan.stdout).unwrap();
    let pinned = ["operations", "batches", "widest_batch", "flops", "bytes_moved", "memory", "kernels"];
    let pinned: serde_json::Map<String, Value> =
        pinned.iter().map(|name| ((*name).to_owned(), plan[*name].clone())).collect();
    insta::assert_json_snapshot!(pinned);

    let packed = ["--set", "data.packing=true", "--steps", "8", "--warmup", "2"];
    let report = report(&workspace, &[&arguments[..], &packed[..]].concat());
    assert_eq!([&report["rows"], &report["sequence"]], [&json!(ROWS), &json!(SEQUENCE)]);
    assert_eq!(report["plan"]["kernels"], plan["operations"]);
    assert_eq!(report["plan"]["batches"], plan["batches"]);
    assert_eq!(report["memory"]["planned_bytes"], plan["memory"]);
    let per_step = |name: &str| report["per_step"][name].as_u64().unwrap();
    let allocations = per_step("heap_allocations_max");
    assert!(allocations > 0, "nothing counts allocations");
    assert!(allocations <= HEAP_ALLOCATIONS, "{allocations} heap allocations in a step");
    let faults = per_step("minor_page_faults");
    assert!(faults <= MINOR_PAGE_FAULTS, "{faults} page faults in a step");
    assert_eq!(per_step("major_page_faults"), 0);
}
