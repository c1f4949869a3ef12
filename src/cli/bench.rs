//! `lazytune bench`

use std::fmt::Write as _;

use indicatif::{ProgressBar, ProgressStyle};

use super::arguments::BenchArguments;
use super::printer::Printer;
use super::progress::{bytes, counter, downloads};
use crate::bench::{self, KindRow, Options, Report, Traffic};
use crate::config;
use crate::error::{Error, Result};
use crate::train::model::OpenModel;
use crate::train::setup::setup;

pub async fn run(arguments: &BenchArguments, printer: &Printer) -> Result<()> {
    let file = &arguments.config;
    let mut overrides = file.overrides.clone();
    overrides.extend(arguments.sequence.map(|tokens| format!("data.max_length={tokens}")));
    overrides.extend(arguments.threads.map(|threads| format!("model.threads={threads}")));
    let config = config::load_with_color(&file.path, &overrides, printer.colored())?;
    let (counting, mut counted) = counter(printer, "tokenizing", "rows");
    let model = OpenModel::open(&config, Some(downloads(printer)))?;
    let setup = setup(config, model, None, &mut counted).await?;
    counting.finish_and_clear();
    let options = Options {
        steps: arguments.steps as usize,
        warm_up: arguments.warmup as usize,
        shapes: arguments.shapes,
    };
    let bar = progress(printer, options.total());
    let report = bench::run(setup, &options, &mut |done| bar.set_position(done as u64)).await;
    bar.finish_and_clear();
    let report = report?;
    report.notices.iter().for_each(|notice| printer.note(&format!("note: {notice}")));
    if arguments.json {
        let text =
            serde_json::to_string_pretty(&report).map_err(|error| Error::internal(error.to_string()))?;
        printer.data(&text);
    } else {
        printer.data(text(&report).trim_end());
    }
    Ok(())
}

/// Drawn between steps only: a bar that moved by itself would be measured.
fn progress(printer: &Printer, steps: usize) -> ProgressBar {
    let bar = if printer.terminal() { ProgressBar::new(steps as u64) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("measuring {bar:30} {pos}/{len} steps  eta {eta}") {
        bar.set_style(style);
    }
    bar
}

fn text(report: &Report) -> String {
    let mut lines = head(report);
    lines.extend(speed(report));
    lines.extend(memory(report));
    lines.extend(counts(report));
    let mut text = String::new();
    for (name, value) in lines {
        let _ = writeln!(text, "{name:<13} {value}");
    }
    text + "\n" + &table(report)
}

type Lines = Vec<(&'static str, String)>;

fn head(report: &Report) -> Lines {
    let Report { model, device, dtype, threads, rows, sequence, micro_batches, .. } = report;
    let windows = if *micro_batches > 1 { format!("{micro_batches} batches of ") } else { String::new() };
    let losses: Vec<String> = report.losses.iter().take(3).map(|loss| format!("{loss:.5}")).collect();
    vec![
        ("model", format!("{model}, {dtype}, on {device} with {threads} threads")),
        (
            "step",
            format!(
                "{windows}{rows} rows x {sequence} tokens; {:.0} tokens of data, {:.0} supervised",
                report.tokens_per_step, report.supervised_tokens_per_step
            ),
        ),
        ("losses", losses.join("  ") + "  (first steps)"),
    ]
}

fn speed(report: &Report) -> Lines {
    let Report { latency_ms: latency, arithmetic, traffic, .. } = report;
    let mut lines = vec![
        (
            "latency",
            format!(
                "p50 {:.1} ms  p95 {:.1}  p99 {:.1}  min {:.1}  ({} steps after {})",
                latency.p50, latency.p95, latency.p99, latency.min, report.timed_steps, report.warm_up_steps
            ),
        ),
        (
            "throughput",
            format!(
                "{:.0} tokens/s, {:.0} of them supervised",
                report.tokens_per_second, report.supervised_tokens_per_second
            ),
        ),
        (
            "arithmetic",
            format!(
                "{:.1} GFLOP, {:.1} of them needed; {:.1} GFLOP/s",
                arithmetic.flop_per_step / 1e9,
                arithmetic.needed_flop_per_step / 1e9,
                arithmetic.gflop_per_second
            ),
        ),
    ];
    if let (Some(peak), Some(floor), Some(percent)) =
        (arithmetic.peak_f32_gflop_per_second, arithmetic.floor_ms, arithmetic.percent_of_peak)
    {
        let dot = arithmetic.peak_bf16_dot_gflop_per_second;
        let dot = dot.map_or(String::new(), |dot| format!(", bf16 dot products {dot:.0}"));
        lines.push(("peak", format!("f32 multiply-adds {peak:.0} GFLOP/s{dot}, measured in this run")));
        lines
            .push(("of the peak", format!("{percent:.1}%: the step could not take less than {floor:.1} ms")));
    }
    let Traffic { gb_per_step, gb_per_second } = traffic;
    lines.push((
        "traffic",
        format!("{gb_per_step:.2} GB if every operand moved once, {gb_per_second:.1} GB/s"),
    ));
    lines
}

fn memory(report: &Report) -> Lines {
    let planned = &report.memory.planned_bytes;
    let parts = [
        ("weights", planned.weights),
        ("packed", planned.packed_weights),
        ("trained", planned.trained),
        ("optimizer", planned.optimizer),
        ("gradients", planned.gradients),
        ("arena", planned.arena),
    ];
    let parts: Vec<String> = parts.iter().map(|(name, count)| format!("{name} {}", bytes(*count))).collect();
    let told = |count: Option<u64>| {
        count.map_or("unknown".to_owned(), |count| bytes(usize::try_from(count).unwrap_or(usize::MAX)))
    };
    let (peak, resident) = (report.memory.process_peak_bytes, report.memory.process_resident_bytes);
    vec![
        ("planned", format!("{}: {}", bytes(planned.total), parts.join(", "))),
        ("process", format!("{} at the peak, {} after the timed steps", told(peak), told(resident))),
    ]
}

fn counts(report: &Report) -> Lines {
    let Report { per_step, plan, caches, .. } = report;
    vec![
        (
            "per step",
            format!(
                "{} kernels in {} batches, at most {} wide",
                plan.kernels, plan.batches, plan.widest_batch
            ),
        ),
        (
            "",
            format!(
                "{} heap allocations (at most {}), page faults {} minor (at most {}), {} major",
                per_step.heap_allocations,
                per_step.heap_allocations_max,
                per_step.minor_page_faults,
                per_step.minor_page_faults_max,
                per_step.major_page_faults
            ),
        ),
        (
            "caches",
            format!(
                "plans {} hits, {} misses ({} after the warm-up); tensors {} hits, {} misses ({})",
                caches.plan_cache_hits,
                caches.plan_cache_misses,
                caches.plan_cache_misses_after_warm_up,
                caches.tensor_cache_hits,
                caches.tensor_cache_misses,
                caches.tensor_cache_misses_after_warm_up
            ),
        ),
    ]
}

fn table(report: &Report) -> String {
    let profile = &report.profile;
    let width = profile.kinds.iter().map(|row| row.kind.len()).max().unwrap_or(0).max("operation".len());
    let mut text = format!("one by one: {:.1} ms a step, mean of {}\n", profile.step_ms, profile.steps);
    let heads = ["calls", "ms", "% of step", "GFLOP/s", "% of peak", "GB/s"];
    let _ = write!(text, "{:<width$}", "operation");
    heads.iter().for_each(|head| {
        let _ = write!(text, " {head:>9}");
    });
    text.push('\n');
    for row in &profile.kinds {
        let KindRow { kind, calls, ms, percent_of_step, gflop_per_second, gb_per_second, .. } = row;
        let peak = row.percent_of_peak.map_or("-".to_owned(), |percent| format!("{percent:.1}"));
        let _ = writeln!(
            text,
            "{kind:<width$} {calls:>9} {ms:>9.2} {percent_of_step:>9.1} {gflop_per_second:>9.1} {peak:>9} {gb_per_second:>9.1}"
        );
    }
    text
}
