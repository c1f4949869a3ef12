//! `lazytune selftest` on the real binary.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use serde_json::Value;
use support::prepared::assert_silent;
use support::workspace::Workspace;

#[test]
fn the_cpu_passes_and_its_report_names_the_machine() {
    let workspace = Workspace::new();
    let arguments = ["selftest", "--device", "cpu", "--threads", "2", "--quick", "--json"];
    let outcome = workspace.run(&arguments).exits(0);
    assert_silent(&outcome.stderr);
    let report: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(report["device"], "cpu");
    assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
    let names: Vec<&str> =
        report["facts"].as_array().unwrap().iter().map(|fact| fact["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["os", "cpu"]);
    assert_eq!(report["skipped"].as_array().unwrap().len(), 0, "{report:#}");
    let rows = report["rows"].as_array().unwrap();
    for row in rows {
        assert_eq!(row["passed"], true, "{row:#}");
        assert_eq!(row["form"], "kernel", "{row:#}");
        assert!(row["error"].as_f64().unwrap() <= row["tolerance"].as_f64().unwrap(), "{row:#}");
        assert!(row["speed"].is_null(), "nothing is timed: {row:#}");
    }
    // f32 and bf16 differ by the optimizer, which is f32, and by casts.
    for dtype in ["f32", "bf16"] {
        let of_type: Vec<&Value> = rows.iter().filter(|row| row["dtype"] == dtype).collect();
        assert!(of_type.len() > 45, "only {} tests in {dtype}", of_type.len());
        let exact = of_type.iter().filter(|row| row["error"].as_f64() == Some(0.0)).count();
        assert!(exact < of_type.len() / 2, "{exact} results in {dtype} without any rounding");
    }
}

#[test]
fn the_table_has_a_line_for_each_test() {
    let workspace = Workspace::new();
    let outcome = workspace.run(&["selftest", "--device", "cpu", "--threads", "1", "--quick"]).exits(0);
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert!(lines[0].starts_with("lazytune") && lines[0].contains("candle"), "{}", outcome.stdout);
    let passed = lines.iter().filter(|line| line.ends_with("    ok")).count();
    let summary = lines.last().unwrap();
    assert!(summary.starts_with(&format!("{passed} of {passed} tests passed")), "{}", outcome.stdout);
    for operation in ["RmsNormGrad", "AttentionGrad, window", "ProjectedCrossEntropyGrad", "AdamW"] {
        assert!(lines.iter().any(|line| line.starts_with(operation)), "{operation} is missing");
    }
}

#[cfg(not(any(feature = "metal", feature = "metal-typecheck")))]
#[test]
fn a_build_without_metal_says_how_to_get_it() {
    let outcome = Workspace::new().run(&["selftest", "--device", "metal"]).exits(1);
    assert_silent(&outcome.stdout);
    outcome.says(&["no metal support", "--features metal"]);
}
