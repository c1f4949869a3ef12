//! What each idea of the engine is worth: one training step of the same model, with ideas added one after the other,
//! and with each one taken away from all of them.
//!
//! The model is the one of the quickstart with random weights. Variants take turns step by step, so that a machine's
//! moods hit all of them alike; a share is the median of the differences of steps side by side. Every variant trains its
//! own copy, and all must end with the same loss. A new switch of `CpuOptions` is one line in `SWITCHES`. Built with
//! `--features metal`, the step also runs on the GPU.

#[path = "support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::io::{Write, stdout};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use lazytune::adapter::AdaptedLinear;
use lazytune::adapter::init::initial_a;
use lazytune::executor::candle::CandleDevice;
use lazytune::executor::{
    AsyncGraphExecutor, CpuDevice, CpuOptions, Device, DeviceCounters, HostTensor, StepInputs,
};
use lazytune::graph::{DType, Shape, TensorType};
use lazytune::model::{ModelSource, lora_a_name, lora_b_name};
use lazytune::optim::{Schedule, ScheduleShape};
use lazytune::plan::{CacheCounts, Plan};
use lazytune::train::{NamedTensors, StepBuilder, StepKind, Trainer};
use lazytune::{Error, Result};

use support::{Allocations, CountingAllocator, adapters, step_builder};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// A folder with the config.json of the model.
const MODEL: &str = "configs/quickstart/base-init";
const ROWS: usize = 4;
const SEQUENCE: usize = 128;
const SEED: u64 = 42;
/// Steps before the clock counts: plans, caches and memory are there then.
const WARM_UP: usize = 2;
const MEASURED: usize = 25;
/// How far final losses may lie apart, relative.
const TOLERANCE: f64 = 1e-3;

/// Turns one idea off.
type TurnOff = fn(&mut CpuOptions);

/// The switches of the CPU, in the order in which they are added.
const SWITCHES: &[(&str, TurnOff)] = &[
    ("tensor cache", |options| options.tensor_cache = false),
    ("parallel batches", |options| options.batch_size_hint = 1),
    ("fused kernels", |options| options.fused_kernels = false),
    ("fusion", |options| options.fuse = false),
    ("merged thin products", |options| options.merge = false),
    ("rematerialization", |options| options.rematerialize = false),
];

/// Where a step runs.
#[derive(Clone, Copy)]
enum Place {
    Cpu(CpuOptions),
    /// The same plain operations through candle.
    CandleCpu,
    #[cfg(feature = "metal")]
    Metal,
}

impl Place {
    fn open(self) -> Result<Box<dyn Device>> {
        Ok(match self {
            Self::Cpu(options) => Box::new(CpuDevice::new(options)?),
            Self::CandleCpu => Box::new(CandleDevice::new(candle_core::Device::Cpu)),
            #[cfg(feature = "metal")]
            Self::Metal => lazytune::executor::metal::open()?,
        })
    }
}

/// A way to run the step.
struct Variant {
    name: String,
    plan_cache: bool,
    place: Place,
    /// The variant that it is compared with, and whether that one has the idea that this one lacks.
    beside: Option<(usize, bool)>,
}

/// A variant under measurement.
struct Runner {
    variant: Variant,
    trainer: Trainer,
    batches: usize,
    operations: usize,
    arena_bytes: usize,
    milliseconds: Vec<f64>,
    allocations: Vec<u64>,
    loss: f64,
}

fn without(switches: &[(&str, TurnOff)]) -> CpuOptions {
    let mut options = CpuOptions::default();
    switches.iter().for_each(|(_, turn_off)| turn_off(&mut options));
    options
}

/// Ideas added one after the other, then each taken away from all of them.
fn variants() -> Vec<Variant> {
    let variant = |name: &str, plan_cache, options, beside| Variant {
        name: name.to_owned(),
        plan_cache,
        place: Place::Cpu(options),
        beside,
    };
    let mut variants = vec![
        variant("eager", false, without(SWITCHES), None),
        variant("+ plan cache", true, without(SWITCHES), Some((0, false))),
    ];
    for (index, (name, _)) in SWITCHES.iter().enumerate() {
        let options = without(&SWITCHES[index + 1..]);
        variants.push(variant(&format!("+ {name}"), true, options, Some((index + 1, false))));
    }
    let all = variants.len() - 1;
    variants[all].name.push_str(" = all together");
    let on = CpuOptions::default();
    variants.push(variant("all but plan cache", false, on, Some((all, true))));
    for (index, (name, _)) in SWITCHES.iter().enumerate() {
        let options = without(&SWITCHES[index..=index]);
        variants.push(variant(&format!("all but {name}"), true, options, Some((all, true))));
    }
    variants.push(variant("all on one thread", true, CpuOptions { threads: 1, ..on }, Some((all, true))));
    let elsewhere =
        |name: &str, plan_cache, place| Variant { name: name.to_owned(), plan_cache, place, beside: None };
    variants.push(elsewhere("candle's operations, eager", false, Place::CandleCpu));
    #[cfg(feature = "metal")]
    variants.push(elsewhere("Metal", true, Place::Metal));
    variants
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    // `cargo test --benches` calls without `--bench`: a look whether everything runs is enough then.
    let measured = if std::env::args().any(|argument| argument == "--bench") { MEASURED } else { 1 };
    let source = Arc::new(ModelSource::random(Path::new(MODEL), SEED)?);
    let mut runners = Vec::new();
    for variant in variants() {
        runners.push(Runner::new(variant, &source).await?);
    }
    let inputs = inputs(source.config.vocab_size)?;
    for round in 0..WARM_UP + measured {
        for runner in &mut runners {
            runner.step(&inputs, round, round >= WARM_UP).await?;
        }
    }
    report(&runners).await?;
    let losses = runners.iter().map(|runner| runner.loss);
    let (least, most) =
        losses.fold((f64::MAX, f64::MIN), |(low, high), loss| (low.min(loss), high.max(loss)));
    if most - least > TOLERANCE * most.abs() || !most.is_finite() {
        return Err(Error::internal(format!("the variants end with losses from {least} to {most}")));
    }
    Ok(())
}

/// Random token ids, each trained on the one that follows.
fn inputs(vocab: usize) -> Result<StepInputs> {
    let tokens = ROWS * SEQUENCE;
    // A multiplicative hash spreads the ids over the vocabulary.
    let id = |position: usize| ((position as u64 * 2_654_435_761) % (1 << 32) % vocab as u64) as u32;
    let vector = |value: &dyn Fn(usize) -> u32| HostTensor::u32(&[tokens], (0..tokens).map(value).collect());
    let number = |value: f32| HostTensor::f32(&[1], vec![value]);
    Ok(StepInputs::from([
        ("input_ids".into(), vector(&id)?),
        ("targets".into(), vector(&|position| id(position + 1))?),
        ("positions".into(), vector(&|position| (position % SEQUENCE) as u32)?),
        ("segments".into(), vector(&|_| 0)?),
        ("loss_scale".into(), number(1.0 / tokens as f32)?),
        ("learning_rate".into(), number(1e-3)?),
    ]))
}

fn initial(adapters: &BTreeMap<String, AdaptedLinear>) -> Result<NamedTensors> {
    let mut values = NamedTensors::new();
    for (path, linear) in adapters {
        let a = initial_a(SEED, path, linear.rank, linear.in_features);
        values.insert(lora_a_name(path), HostTensor::f32(&[linear.rank, linear.in_features], a)?);
        let b = TensorType::new(Shape::new(&[linear.out_features, linear.rank])?, DType::F32);
        values.insert(lora_b_name(path), HostTensor::zeros(b));
    }
    Ok(values)
}

impl Runner {
    async fn new(variant: Variant, source: &Arc<ModelSource>) -> Result<Self> {
        let adapters = adapters(&source.config)?;
        let initial = initial(&adapters)?;
        let builder = step_builder(&source.config, adapters, SEQUENCE);
        let executor = AsyncGraphExecutor::new(variant.place.open()?)?;
        let model = source.clone();
        let load = move |name: &str, tensor: TensorType| {
            let dims = tensor.shape.dims();
            HostTensor::f32(dims, model.weights.read_f32(name, dims)?)
        };
        executor.set_weights(Arc::new(load)).await?;
        let schedule = Schedule {
            shape: ScheduleShape::Constant,
            peak: 1e-3,
            minimum: 0.0,
            warmup_steps: 0,
            total_steps: 1,
        };
        let trainer = Trainer::new(executor, builder, schedule, SEED, initial).await?;
        let plan = compiled(&trainer.builder, &trainer.executor)?;
        Ok(Self {
            variant,
            trainer,
            batches: plan.batches.len(),
            operations: plan.operations(),
            arena_bytes: plan.arena_bytes,
            milliseconds: Vec::new(),
            allocations: Vec::new(),
            loss: f64::NAN,
        })
    }

    /// One optimizer step, from asking for the plan to having the loss.
    async fn step(&mut self, inputs: &StepInputs, index: usize, counts: bool) -> Result<()> {
        let mut inputs = inputs.clone();
        inputs.insert("step".into(), HostTensor::f32(&[1], vec![(index + 1) as f32])?);
        let Self { trainer: Trainer { builder, executor, .. }, variant, .. } = self;
        let (before, start) = (Allocations::so_far(), Instant::now());
        let plan = match variant.plan_cache {
            true => builder.plan(executor, StepKind::Only, ROWS, SEQUENCE)?,
            false => Arc::new(compiled(builder, executor)?),
        };
        let outcome = executor.run(plan, inputs).await?;
        if counts {
            self.milliseconds.push(start.elapsed().as_secs_f64() * 1e3);
            self.allocations.push(Allocations::so_far().since(before).count);
        }
        let loss = outcome.outputs.first().and_then(|loss| loss.to_f64().first().copied());
        self.loss = loss.ok_or_else(|| Error::internal("a step gave no loss"))?;
        Ok(())
    }
}

fn compiled(builder: &StepBuilder, executor: &AsyncGraphExecutor) -> Result<Plan> {
    builder.compile(StepKind::Only, ROWS, SEQUENCE, executor.target())
}

fn median<T: Copy + PartialOrd>(values: &[T]) -> Option<T> {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    sorted.get(sorted.len() / 2).copied()
}

/// What the idea that tells `runner` from the variant beside it saves: ms, and a share of the step without it.
fn saving(runner: &Runner, runners: &[Runner]) -> Option<(f64, f64)> {
    let (beside, lacks) = runner.variant.beside?;
    let (own, other) = (&runner.milliseconds, &runners.get(beside)?.milliseconds);
    let (without, with) = if lacks { (own, other) } else { (other, own) };
    let saved: Vec<f64> = without.iter().zip(with).map(|(without, with)| without - with).collect();
    let saved = median(&saved)?;
    Some((saved, 100.0 * saved / median(without)?))
}

/// Prints a row for each variant: median and least time, what its idea saves, speed relative to the first, counts.
async fn report(runners: &[Runner]) -> Result<()> {
    let mut out = stdout().lock();
    let mut line = |text: String| writeln!(out, "{text}").map_err(|e| Error::device(e.to_string()));
    let threads = CpuOptions::default().threads;
    line(format!(
        "{MODEL}: {ROWS} x {SEQUENCE} tokens a step, LoRA r = 8 on all linear layers, {threads} threads"
    ))?;
    let heads = [
        ("median ms", 9),
        ("least ms", 9),
        ("saves ms", 9),
        ("saves %", 8),
        ("speed", 7),
        ("ops", 6),
        ("batches", 8),
        ("arena MB", 8),
        ("plans h/m", 11),
        ("tensors h/m", 13),
        ("allocations", 12),
        ("loss", 9),
    ];
    line(heads.iter().fold(format!("{:28}", ""), |text, (head, width)| format!("{text} {head:>width$}")))?;
    let eager = runners.first().and_then(|runner| median(&runner.milliseconds)).unwrap_or(f64::NAN);
    for runner in runners {
        line(row(runner, runners, eager).await?)?;
    }
    Ok(())
}

async fn row(runner: &Runner, runners: &[Runner], eager: f64) -> Result<String> {
    let time = median(&runner.milliseconds).unwrap_or(f64::NAN);
    let least = runner.milliseconds.iter().copied().fold(f64::INFINITY, f64::min);
    let (ms, percent) = saving(runner, runners)
        .map_or_else(Default::default, |(ms, percent)| (format!("{ms:.2}"), format!("{percent:.1}")));
    let CacheCounts { hits, misses } = runner.trainer.executor.plan_counts();
    let counters = runner.trainer.executor.counters().await?;
    let DeviceCounters { tensor_cache_hits, tensor_cache_misses, .. } = counters;
    Ok(format!(
        "{:28} {time:>9.1} {least:>9.1} {ms:>9} {percent:>8} {:>6.2}x {:>6} {:>8} {:>8.1} {:>11} {:>13} {:>12} {:>9.5}",
        runner.variant.name,
        eager / time,
        runner.operations,
        runner.batches,
        runner.arena_bytes as f64 / 1e6,
        format!("{hits}/{misses}"),
        format!("{tensor_cache_hits}/{tensor_cache_misses}"),
        median(&runner.allocations).unwrap_or(0),
        runner.loss,
    ))
}
