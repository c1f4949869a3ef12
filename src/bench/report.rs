//! The figures of a bench, from samples. Units stand in the names; G is 10^9.

use serde::Serialize;

use super::cost::step_cost;
use super::profile::StepProfile;
use super::{MicroBatch, Options, Peaks, Sample};
use crate::error::Result;
use crate::executor::AsyncGraphExecutor;
use crate::plan::Cost;
use crate::train::PlannedMemory;
use crate::train::process::Process;

/// Everything a bench found out. "Per second" is at the median latency.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Report {
    pub model: String,
    pub device: String,
    /// Of frozen weights and activations.
    pub dtype: String,
    pub threads: usize,
    pub rows: usize,
    /// Tokens per row, padding included.
    pub sequence: usize,
    /// Batches of one optimizer step.
    pub micro_batches: usize,
    /// Without padding; the mean where steps differ.
    pub tokens_per_step: f64,
    pub supervised_tokens_per_step: f64,
    pub warm_up_steps: usize,
    pub timed_steps: usize,
    /// Of every step in order, those to warm up included.
    pub step_ms: Vec<f64>,
    pub losses: Vec<f64>,
    pub latency_ms: Latency,
    pub tokens_per_second: f64,
    pub supervised_tokens_per_second: f64,
    pub arithmetic: Arithmetic,
    pub traffic: Traffic,
    pub memory: MeasuredMemory,
    pub per_step: PerStep,
    pub plan: PlanCounts,
    pub caches: Caches,
    pub profile: StepProfile,
    pub notices: Vec<String>,
}

/// Of the timed steps.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Latency {
    pub min: f64,
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
    pub mean: f64,
}

impl Latency {
    /// Percentiles by nearest rank.
    fn of(ms: &[f64]) -> Self {
        let mut sorted = ms.to_vec();
        sorted.sort_by(f64::total_cmp);
        let rank = |percent: usize| {
            let rank = (percent * sorted.len()).div_ceil(100).max(1);
            sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
        };
        let mean = sorted.iter().sum::<f64>() / sorted.len().max(1) as f64;
        Self { min: rank(0), p50: rank(50), p95: rank(95), p99: rank(99), max: rank(100), mean }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Arithmetic {
    /// What the plan computes.
    pub flop_per_step: f64,
    /// The same without what is computed twice to save memory.
    pub needed_flop_per_step: f64,
    pub gflop_per_second: f64,
    /// f32 multiply-adds on registers; `None` on other devices than the CPU.
    pub peak_f32_gflop_per_second: Option<f64>,
    /// bf16 dot products on registers, for runs in bf16 where the machine has the instruction.
    pub peak_bf16_dot_gflop_per_second: Option<f64>,
    /// What the needed operations would take at the peak of the run's type.
    pub floor_ms: Option<f64>,
    /// The floor as a share of the median latency.
    pub percent_of_peak: Option<f64>,
}

/// If every operand moved once.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Traffic {
    pub gb_per_step: f64,
    pub gb_per_second: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct MeasuredMemory {
    pub planned_bytes: PlannedMemory,
    /// The most that the process held at once, opening the model included.
    pub process_peak_bytes: Option<u64>,
    /// What it holds after the timed steps.
    pub process_resident_bytes: Option<u64>,
}

impl MeasuredMemory {
    pub(super) fn new(planned_bytes: PlannedMemory, process: &Process) -> Self {
        Self {
            planned_bytes,
            process_peak_bytes: process.peak_bytes,
            process_resident_bytes: process.resident_bytes,
        }
    }
}

/// Medians and largest counts over the timed steps.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct PerStep {
    pub heap_allocations: u64,
    pub heap_allocations_max: u64,
    pub heap_bytes: u64,
    pub minor_page_faults: u64,
    pub minor_page_faults_max: u64,
    pub major_page_faults: u64,
    pub major_page_faults_max: u64,
}

impl PerStep {
    fn of(samples: &[Sample]) -> Self {
        let sorted = |count: fn(&Sample) -> u64| {
            let mut counts: Vec<u64> = samples.iter().map(count).collect();
            counts.sort_unstable();
            (counts.get(counts.len() / 2).copied().unwrap_or(0), counts.last().copied().unwrap_or(0))
        };
        let (heap_allocations, heap_allocations_max) = sorted(|sample| sample.allocations.count);
        let (minor_page_faults, minor_page_faults_max) = sorted(|sample| sample.minor_faults);
        let (major_page_faults, major_page_faults_max) = sorted(|sample| sample.major_faults);
        let (heap_bytes, _) = sorted(|sample| sample.allocations.bytes);
        Self {
            heap_allocations,
            heap_allocations_max,
            heap_bytes,
            minor_page_faults,
            minor_page_faults_max,
            major_page_faults,
            major_page_faults_max,
        }
    }
}

/// What one step dispatches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct PlanCounts {
    pub kernels: usize,
    /// Groups of kernels that run side by side.
    pub batches: usize,
    pub widest_batch: usize,
}

impl PlanCounts {
    pub(super) fn of(batches: &[MicroBatch]) -> Self {
        batches.iter().fold(Self::default(), |sum, MicroBatch { plan, .. }| Self {
            kernels: sum.kernels + plan.operations(),
            batches: sum.batches + plan.batches.len(),
            widest_batch: plan.batches.iter().map(Vec::len).fold(sum.widest_batch, usize::max),
        })
    }
}

/// Since the start, and since the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Caches {
    pub plan_cache_hits: u64,
    pub plan_cache_misses: u64,
    pub plan_cache_misses_after_warm_up: u64,
    pub tensor_cache_hits: u64,
    pub tensor_cache_misses: u64,
    pub tensor_cache_misses_after_warm_up: u64,
}

impl Caches {
    pub(super) async fn now(executor: &AsyncGraphExecutor) -> Result<Self> {
        let (plans, tensors) = (executor.plan_counts(), executor.tensor_cache().await?);
        Ok(Self {
            plan_cache_hits: plans.hits,
            plan_cache_misses: plans.misses,
            tensor_cache_hits: tensors.hits,
            tensor_cache_misses: tensors.misses,
            ..Self::default()
        })
    }

    pub(super) fn since_warm_up(self, warm: &Self) -> Self {
        Self {
            plan_cache_misses_after_warm_up: self.plan_cache_misses - warm.plan_cache_misses,
            tensor_cache_misses_after_warm_up: self.tensor_cache_misses - warm.tensor_cache_misses,
            ..self
        }
    }
}

/// Of one optimizer step.
pub(super) struct Work {
    computed: Cost,
    needed_flop: f64,
}

/// Adds up a step's micro-batches. What is computed a second time to save memory is not needed.
pub(super) fn work(batches: &[MicroBatch]) -> Work {
    let mut work = Work { computed: Cost::default(), needed_flop: 0.0 };
    for MicroBatch { plan, supervised, .. } in batches {
        let cost = |&index: &usize| step_cost(&plan.graph, index, *supervised);
        let computed: Cost = plan.batches.iter().flatten().map(cost).sum();
        work.computed = work.computed + computed;
        work.needed_flop += computed.flops - plan.recomputed.cost.flops;
    }
    work
}

/// The figures that follow from samples; the rest is left empty.
pub(super) fn of_steps(samples: &[Sample], options: &Options, work: &Work, peaks: Peaks) -> Report {
    let timed = &samples[options.warm_up..];
    let ms = |samples: &[Sample]| samples.iter().map(|sample| sample.ms).collect::<Vec<_>>();
    let mean = |count: fn(&Sample) -> usize| {
        timed.iter().map(|sample| count(sample) as f64).sum::<f64>() / timed.len().max(1) as f64
    };
    let (tokens, supervised) = (mean(|sample| sample.tokens), mean(|sample| sample.supervised_tokens));
    let latency_ms = Latency::of(&ms(timed));
    let per_second = |amount: f64| amount / (latency_ms.p50 * 1e-3);
    let floor_ms = peaks.reference().map(|peak| work.needed_flop / peak * 1e3);
    let giga = |rate: f64| rate / 1e9;
    Report {
        tokens_per_step: tokens,
        supervised_tokens_per_step: supervised,
        warm_up_steps: options.warm_up,
        timed_steps: options.steps,
        step_ms: ms(samples),
        losses: samples.iter().map(|sample| sample.loss).collect(),
        latency_ms,
        tokens_per_second: per_second(tokens),
        supervised_tokens_per_second: per_second(supervised),
        arithmetic: Arithmetic {
            flop_per_step: work.computed.flops,
            needed_flop_per_step: work.needed_flop,
            gflop_per_second: giga(per_second(work.computed.flops)),
            peak_f32_gflop_per_second: peaks.f32.map(giga),
            peak_bf16_dot_gflop_per_second: peaks.bf16_dot.map(giga),
            floor_ms,
            percent_of_peak: floor_ms.map(|floor| 100.0 * floor / latency_ms.p50),
        },
        traffic: Traffic {
            gb_per_step: giga(work.computed.bytes),
            gb_per_second: giga(per_second(work.computed.bytes)),
        },
        per_step: PerStep::of(timed),
        ..Report::default()
    }
}
