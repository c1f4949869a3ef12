//! `lazytune selftest`

use std::fmt::Write as _;

use indicatif::{ProgressBar, ProgressStyle};

use super::arguments::{SelftestArguments, TestedDevice};
use super::printer::Printer;
use crate::config::DeviceChoice;
use crate::error::{Error, Result};
use crate::executor::CpuOptions;
use crate::selftest::{self, Options, Report, Row};
use crate::train::model::open_executor;

pub async fn run(arguments: &SelftestArguments, printer: &Printer) -> Result<()> {
    let threads = arguments.threads.map_or(CpuOptions::default().threads, usize::from);
    let choice = match arguments.device {
        TestedDevice::Auto => DeviceChoice::Auto,
        TestedDevice::Cpu => DeviceChoice::Cpu,
        TestedDevice::Metal => DeviceChoice::Metal,
        TestedDevice::Cuda => DeviceChoice::Cuda,
    };
    let executor = open_executor(choice, Some(threads))?;
    let options = Options { threads, quick: arguments.quick };
    let bar = progress(printer);
    let mut done = |count: usize, total: usize| {
        bar.set_length(total as u64);
        bar.set_position(count as u64);
    };
    let report = selftest::run(executor, options, &mut done).await;
    bar.finish_and_clear();
    let report = report?;
    if arguments.json {
        let value = serde_json::to_value(&report).map_err(|error| Error::internal(error.to_string()))?;
        printer.json(&value)?;
    } else {
        printer.data(text(&report).trim_end());
    }
    match report.failed() {
        0 => Ok(()),
        failed => Err(Error::device(format!("{failed} of {} tests failed", report.rows.len()))
            .hint("please report it, with all that was printed")),
    }
}

/// Drawn between tests only: a bar that moved by itself would be measured.
fn progress(printer: &Printer) -> ProgressBar {
    let bar = if printer.terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("testing {bar:30} {pos}/{len}  eta {eta}") {
        bar.set_style(style);
    }
    bar
}

fn text(report: &Report) -> String {
    let Report { version, candle, device, threads, seconds, .. } = report;
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<24} {value}");
    };
    line("lazytune", &format!("{version}, candle {candle}"));
    line("device", &format!("{device}; {threads} threads of the CPU"));
    report.facts.iter().for_each(|fact| line(&fact.name, &fact.value));
    for peak in &report.peaks {
        let (copy, gemm) = (peak.copy_gb_per_second, peak.gemm_gflop_per_second);
        line(&format!("measured {}", peak.dtype), &format!("copy {copy:.1} GB/s, GEMM {gemm:.0} GFLOP/s"));
    }
    text.push('\n');
    text.push_str(&table(report));
    for skipped in &report.skipped {
        let _ = writeln!(text, "skipped: {}: {}", skipped.what, skipped.why);
    }
    for row in report.rows.iter().filter(|row| !row.passed) {
        let reason = row.problem.as_deref().unwrap_or("the result differs by more than the tolerance");
        let _ = writeln!(text, "FAIL {} {}: {reason}", row.operation, row.dtype);
    }
    let passed = report.rows.len() - report.failed();
    let _ = writeln!(text, "{passed} of {} tests passed in {seconds:.0} s", report.rows.len());
    text
}

/// Errors are relative to the largest expected value; speeds are of SmolLM2-135M's shapes at 4 x 512 tokens.
fn table(report: &Report) -> String {
    let width = report.rows.iter().map(|row| row.operation.len()).max().unwrap_or(0);
    let mut text = format!(
        "{:<width$} {:>5} {:>6} {:>9} {:>9} {:>5}",
        "operation", "dtype", "form", "error", "allowed", ""
    );
    if !report.quick {
        for head in ["ms", "GB/s", "% of copy", "GFLOP/s", "% of GEMM"] {
            let _ = write!(text, " {head:>9}");
        }
    }
    text.push('\n');
    for row in &report.rows {
        let Row { operation, dtype, form, tolerance, .. } = row;
        let error = row.error.map_or("-".to_owned(), |error| format!("{error:.1e}"));
        let verdict = if row.passed { "ok" } else { "FAIL" };
        let _ = write!(
            text,
            "{operation:<width$} {dtype:>5} {form:>6} {error:>9} {tolerance:>9.1e} {verdict:>5}"
        );
        if let Some(speed) = &row.speed {
            let _ = write!(
                text,
                " {:>9.3} {:>9.1} {:>9.1} {:>9.1} {:>9.1}",
                speed.ms,
                speed.gb_per_second,
                speed.percent_of_copy,
                speed.gflop_per_second,
                speed.percent_of_gemm
            );
        }
        text.push('\n');
    }
    text
}
