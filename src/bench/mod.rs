//! Measures training steps: how long they take, how near that is to what the machine can do, and where the time goes.
//!
//! ```text
//! batches of one shape -> warm-up -> timed steps -> profiled steps (operations one by one) -> report
//! ```
//!
//! The machine's peak is measured in the same run, before and after the timed steps.

mod cost;
mod profile;
mod report;
mod windows;

use std::sync::Arc;

pub use profile::{KindRow, StepProfile};
pub use report::{Arithmetic, Caches, Latency, MeasuredMemory, PerStep, PlanCounts, Report, Traffic};

use crate::data::{Batch, Window};
use crate::error::{Error, Result};
use crate::executor::{CpuOptions, Unobserved};
use crate::graph::DType;
use crate::kernels::allocations::Allocations;
use crate::kernels::simd::Isa;
use crate::kernels::simd::peak::{bf16_dot_peak, f32_peak};
use crate::plan::Plan;
use crate::train::process::{Faults, Process};
use crate::train::setup::Setup;
use crate::train::{PlannedMemory, StepKind, Trainer};

use profile::{Profiled, Stopwatch};
use windows::Windows;

/// At most so many steps are profiled, and no more than are timed.
const PROFILED_STEPS: usize = 3;

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Timed steps, at least one.
    pub steps: usize,
    /// Steps before them, which compile plans, fill caches and touch memory first.
    pub warm_up: usize,
    /// Tell operations of different shapes apart in the profile.
    pub shapes: bool,
}

impl Options {
    /// All steps that are run.
    pub fn total(&self) -> usize {
        self.warm_up + self.steps + self.profiled()
    }

    fn profiled(&self) -> usize {
        self.steps.min(PROFILED_STEPS)
    }
}

/// Operations per second of register arithmetic on all threads.
#[derive(Debug, Clone, Copy, Default)]
struct Peaks {
    f32: Option<f64>,
    bf16_dot: Option<f64>,
}

impl Peaks {
    fn measure(setup: &Setup, threads: usize) -> Self {
        if setup.trainer.executor.device_name() != "cpu" {
            return Self::default();
        }
        let isa = Isa::detect();
        let bf16 = setup.model.dtype == DType::Bf16;
        Self {
            f32: Some(f32_peak(isa, threads)),
            bf16_dot: if bf16 { bf16_dot_peak(isa, threads) } else { None },
        }
    }

    fn best(self, other: Self) -> Self {
        let best = |a: Option<f64>, b: Option<f64>| a.into_iter().chain(b).reduce(f64::max);
        Self { f32: best(self.f32, other.f32), bf16_dot: best(self.bf16_dot, other.bf16_dot) }
    }

    /// What the run's products are measured against.
    fn reference(self) -> Option<f64> {
        self.bf16_dot.or(self.f32)
    }
}

/// What one step took.
struct Sample {
    ms: f64,
    loss: f64,
    tokens: usize,
    supervised_tokens: usize,
    allocations: Allocations,
    minor_faults: u64,
    major_faults: u64,
}

/// Runs steps and measures them; `done` is told after each how many there have been. Nothing is written.
///
/// # Errors
/// A user error if there is nothing to time; whatever a step fails with.
pub async fn run(
    mut setup: Setup,
    options: &Options,
    done: &mut (dyn FnMut(usize) + Send),
) -> Result<Report> {
    if options.steps == 0 {
        return Err(Error::user("there is no step to time").hint("ask for one step or more"));
    }
    let windows = Windows::choose(&mut setup, options.total()).await?;
    if setup.trainer.prefix.is_some() {
        know_prefix(&mut setup, &windows).await?;
    }
    let threads = setup.config.model.threads.unwrap_or(CpuOptions::default().threads);
    let mut peaks = Peaks::measure(&setup, threads);
    let mut steps = Vec::with_capacity(options.total());
    for index in 0..options.warm_up {
        steps.push(sample(&mut setup.trainer, windows.get(index)).await?);
        done(steps.len());
    }
    let warm = Caches::now(&setup.trainer.executor).await?;
    for index in options.warm_up..options.warm_up + options.steps {
        steps.push(sample(&mut setup.trainer, windows.get(index)).await?);
        done(steps.len());
    }
    let caches = Caches::now(&setup.trainer.executor).await?.since_warm_up(&warm);
    let process = Process::now();
    peaks = peaks.best(Peaks::measure(&setup, threads));
    let batches = micro_batches(&setup.trainer, windows.get(0))?;
    let profile = profile(&mut setup.trainer, &windows, options, &batches, peaks, done).await?;
    if setup.trainer.executor.defers() {
        let waited = "every step was waited for; in training, the next one is prepared while a step runs";
        setup.notices.push(waited.to_owned());
    }
    let last = batches.last().ok_or_else(|| Error::internal("a window without batches"))?;
    Ok(Report {
        model: setup.model.name.clone(),
        device: setup.trainer.executor.device_name().to_owned(),
        dtype: setup.model.dtype.to_string(),
        threads,
        rows: windows.rows(),
        sequence: windows.sequence(),
        micro_batches: batches.len(),
        memory: MeasuredMemory::new(PlannedMemory::of(&last.plan, setup.trainer.executor.target()), &process),
        plan: PlanCounts::of(&batches),
        caches,
        profile,
        notices: setup.notices.drain(..).chain(windows.notice(&setup.config)).collect(),
        ..report::of_steps(&steps, options, &report::work(&batches), peaks)
    })
}

/// Computes the frozen layers for every row, so that the steps are like those from the second epoch on.
async fn know_prefix(setup: &mut Setup, windows: &Windows) -> Result<()> {
    for batch in windows.all().iter().flat_map(|window| &window.batches) {
        setup.trainer.prefix_hidden(batch).await?;
    }
    let rows = setup.trainer.prefix_counts().unwrap_or_default().rows;
    setup.notices.push(format!(
        "steps are those from the second epoch on, with {rows} rows in the frozen prefix cache, and counts are of the \
         layers above it; train.frozen_prefix_cache = \"off\" runs all layers"
    ));
    Ok(())
}

/// One optimizer step, and what it asked of the system.
async fn sample(trainer: &mut Trainer, window: &Window) -> Result<Sample> {
    let (allocations, faults) = (Allocations::so_far(), Faults::now());
    let report = trainer.step(window, 0.0).await?;
    let (allocations, after) = (Allocations::so_far().since(allocations), Faults::now());
    Ok(Sample {
        ms: report.step_ms,
        loss: report.loss,
        tokens: report.tokens,
        supervised_tokens: report.supervised_tokens,
        allocations,
        minor_faults: after.minor - faults.minor,
        major_faults: after.major - faults.major,
    })
}

/// One of the batches whose gradients an optimizer step adds up.
struct MicroBatch {
    plan: Arc<Plan>,
    /// Share of the positions that the loss is computed on.
    supervised: f64,
}

fn micro_batches(trainer: &Trainer, window: &Window) -> Result<Vec<MicroBatch>> {
    let count = window.batches.len();
    let micro_batch = |(index, batch): (usize, &Batch)| {
        let kind = StepKind::of(index, count);
        let (builder, executor) = (&trainer.builder, &trainer.executor);
        let plan = builder.plan_from(trainer.source(), executor, kind, batch.rows, batch.sequence)?;
        let supervised = batch.supervised_tokens as f64 / (batch.rows * batch.sequence).max(1) as f64;
        Ok(MicroBatch { plan, supervised })
    };
    window.batches.iter().enumerate().map(micro_batch).collect()
}

async fn profile(
    trainer: &mut Trainer,
    windows: &Windows,
    options: &Options,
    batches: &[MicroBatch],
    peaks: Peaks,
    done: &mut (dyn FnMut(usize) + Send),
) -> Result<StepProfile> {
    let stopwatch = Stopwatch::default();
    trainer.executor.observe(Box::new(stopwatch.clone())).await?;
    let first = options.warm_up + options.steps;
    let mut total_ms = 0.0;
    for index in first..options.total() {
        total_ms += trainer.step(windows.get(index), 0.0).await?.step_ms;
        done(index + 1);
    }
    trainer.executor.observe(Box::new(Unobserved)).await?;
    let steps = options.profiled();
    let profiled = Profiled {
        stopwatch: &stopwatch,
        batches,
        steps,
        step_ms: total_ms / steps as f64,
        peak: peaks.reference(),
        shapes: options.shapes,
    };
    Ok(profiled.table())
}
