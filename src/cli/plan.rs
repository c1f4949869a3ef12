//! `lazytune plan`

use std::collections::BTreeMap;

use serde::Serialize;

use super::arguments::PlanArguments;
use super::printer::Printer;
use super::progress::{bytes, downloads};
use crate::config::{self, DeviceChoice, Method, RunConfig};
use crate::error::{Error, Result};
use crate::executor::candle::PlainTarget;
use crate::executor::metal::{Dispatches, MetalTarget, SECONDS_PER_BUFFER, record_alone};
use crate::executor::{CpuOptions, CpuTarget, kind_of};
use crate::model::Trained;
use crate::passes;
use crate::plan::{Plan, Recomputed, Target};
use crate::train::model::OpenModel;
use crate::train::setup::optimizer;
use crate::train::{PlannedMemory, StepBuilder, StepKind, adapter};

pub fn run(arguments: &PlanArguments, printer: &Printer) -> Result<()> {
    let file = &arguments.config;
    let config = config::load_with_color(&file.path, &file.overrides, printer.colored())?;
    let model = OpenModel::open(&config, Some(downloads(printer)))?;
    let sequence = arguments.sequence.unwrap_or(config.data.max_length);
    let device = arguments.device.as_deref().map_or(config.model.device, |device| match device {
        "metal" => DeviceChoice::Metal,
        "cuda" => DeviceChoice::Cuda,
        _ => DeviceChoice::Cpu,
    });
    let report = report(&config, &model, sequence, device)?;
    if arguments.json {
        let text =
            serde_json::to_string_pretty(&report).map_err(|error| Error::internal(error.to_string()))?;
        printer.data(&text);
    } else {
        printer.data(report.to_string().trim_end());
    }
    Ok(())
}

/// A step's plan in numbers.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    rows: usize,
    sequence: usize,
    /// Nodes that building made, equal ones joined.
    nodes_built: usize,
    operations_before_passes: usize,
    passes: Vec<PassLine>,
    operations: usize,
    batches: usize,
    widest_batch: usize,
    /// How many batches have how many operations.
    widths: BTreeMap<usize, usize>,
    /// Dispatches by kind of operation.
    kernels: BTreeMap<String, usize>,
    flops: f64,
    bytes_moved: f64,
    recomputed: RecomputedLine,
    memory: PlannedMemory,
    /// Where the plan is for Metal.
    #[serde(skip_serializing_if = "Option::is_none")]
    metal: Option<MetalLines>,
}

/// What a step asks of Metal's command queue.
#[derive(Debug, Serialize)]
struct MetalLines {
    dispatches: Dispatches,
    /// If candle ran plain operations one by one.
    one_by_one: Dispatches,
    /// Buffers of intermediate values, and their bytes.
    buffers: usize,
    buffer_bytes: usize,
}

/// What the backward pass computes a second time, to keep less.
#[derive(Debug, Serialize)]
struct RecomputedLine {
    operations: usize,
    flops: f64,
    bytes_moved: f64,
    saved_bytes: usize,
}

#[derive(Debug, Serialize)]
struct PassLine {
    name: &'static str,
    before: usize,
    after: usize,
    ms: f64,
}

fn metal(plan: &Plan, plain: &Plan) -> Result<MetalLines> {
    let program = record_alone(plan, SECONDS_PER_BUFFER)?;
    Ok(MetalLines {
        dispatches: Dispatches::of(&program),
        one_by_one: Dispatches::eager(plain),
        buffers: program.buffers.len(),
        buffer_bytes: program.bytes(),
    })
}

fn report(config: &RunConfig, model: &OpenModel, sequence: usize, device: DeviceChoice) -> Result<Report> {
    let trained = match config.adapter.method {
        Method::Full => Trained::All,
        Method::Lora => Trained::Adapters(adapter::described(&config.adapter, model)?.1),
    };
    let builder = StepBuilder {
        decoder: model.decoder.clone(),
        trained,
        dtype: model.dtype,
        optimizer: optimizer(config),
        max_positions: sequence,
        memory_budget: config.model.memory_budget,
    };
    let cpu = CpuTarget(CpuOptions::default());
    let target: &dyn Target = match device {
        DeviceChoice::Auto | DeviceChoice::Cpu => &cpu,
        DeviceChoice::Metal => &MetalTarget,
        DeviceChoice::Cuda => &PlainTarget,
    };
    let rows = config.train.batch_size;
    let kind = if config.train.gradient_accumulation_steps > 1 { StepKind::Last } else { StepKind::Only };
    let step = builder.build(kind, rows, sequence, target)?;
    let operations_before_passes = passes::operations(&step.graph);
    let plan = builder.compile(kind, rows, sequence, target)?;
    let metal = match device {
        DeviceChoice::Metal => Some(metal(&plan, &builder.compile(kind, rows, sequence, &PlainTarget)?)?),
        DeviceChoice::Auto | DeviceChoice::Cpu | DeviceChoice::Cuda => None,
    };
    let mut widths = BTreeMap::new();
    plan.batches.iter().for_each(|batch| *widths.entry(batch.len()).or_default() += 1);
    let mut kernels = BTreeMap::new();
    for &index in plan.batches.iter().flatten() {
        *kernels.entry(kind_of(&plan.graph.nodes()[index].operation)).or_default() += 1;
    }
    let cost = plan.cost();
    let pass = |pass: &passes::PassReport| PassLine {
        name: pass.name,
        before: pass.operations_before,
        after: pass.operations_after,
        ms: pass.took.as_secs_f64() * 1e3,
    };
    Ok(Report {
        model: model.name.clone(),
        rows,
        sequence,
        nodes_built: step.built,
        operations_before_passes,
        passes: plan.passes.iter().map(pass).collect(),
        operations: plan.operations(),
        batches: plan.batches.len(),
        widest_batch: plan.batches.iter().map(Vec::len).max().unwrap_or(0),
        widths,
        kernels,
        flops: cost.flops,
        bytes_moved: cost.bytes,
        recomputed: recomputed(&plan.recomputed),
        memory: PlannedMemory::of(&plan, target),
        metal,
    })
}

fn recomputed(recomputed: &Recomputed) -> RecomputedLine {
    let Recomputed { operations, cost, saved_bytes } = *recomputed;
    RecomputedLine { operations, flops: cost.flops, bytes_moved: cost.bytes, saved_bytes }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}: one step of {} rows x {} tokens", self.model, self.rows, self.sequence)?;
        writeln!(
            f,
            "built        {:>7} nodes, {} operations",
            self.nodes_built, self.operations_before_passes
        )?;
        for PassLine { name, before, after, ms } in &self.passes {
            writeln!(f, "{name:<12} {before:>7} -> {after} operations ({ms:.1} ms)")?;
        }
        writeln!(
            f,
            "dispatched   {:>7} kernels in {} batches, at most {} wide",
            self.operations, self.batches, self.widest_batch
        )?;
        for (kind, count) in &self.kernels {
            writeln!(f, "             {count:>7} {kind}")?;
        }
        writeln!(f, "arithmetic   {:>10.1} GFLOP", self.flops / 1e9)?;
        writeln!(f, "traffic      {:>10.1} GB if every operand moved once", self.bytes_moved / 1e9)?;
        let again = &self.recomputed;
        writeln!(
            f,
            "recomputed   {:>7} kernels, {:.1} GFLOP, {:.1} GB: keeps {} less",
            again.operations,
            again.flops / 1e9,
            again.bytes_moved / 1e9,
            bytes(again.saved_bytes)
        )?;
        let memory = &self.memory;
        let lines = [
            ("weights", memory.weights),
            ("packed", memory.packed_weights),
            ("trained", memory.trained),
            ("optimizer", memory.optimizer),
            ("gradients", memory.gradients),
            ("arena", memory.arena),
            ("total", memory.total),
        ];
        for (name, count) in lines {
            writeln!(f, "{name:<12} {:>10}", bytes(count))?;
        }
        writeln!(f, "the arena cannot be smaller than {}", bytes(memory.arena_lower_bound))?;
        let Some(metal) = &self.metal else { return Ok(()) };
        writeln!(f, "on Metal the arena is {} buffers, {}", metal.buffers, bytes(metal.buffer_bytes))?;
        writeln!(f, "a step there  {}", metal.dispatches)?;
        writeln!(f, "candle's way  {}", metal.one_by_one)
    }
}
