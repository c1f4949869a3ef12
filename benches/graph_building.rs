//! What it costs to build the graph of one training step, and what reusing its plan saves.
//!
//! The model has the shape of SmolLM2-135M with LoRA on all seven linear layers of its 30 layers; nothing is computed
//! and no weight is allocated. Three questions:
//!
//! - `interning`: what do sharded maps buy over maps behind a lock? Both twins replay the nodes of a whole step. With
//!   several threads, each adds a micro-batch of its own, all over the same weights, to one graph.
//! - `forward`: the same for the model code itself on `ComputationGraph`, which also derives types.
//! - `step`: building, differentiating and planning a step, against fetching its plan from the cache.

#[path = "support/mod.rs"]
mod support;
#[path = "support/twins.rs"]
mod twins;

use std::hint::black_box;
use std::io::{Write, stdout};
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use lazytune::executor::{AsyncGraphExecutor, CpuDevice, CpuOptions};
use lazytune::graph::{ComputationGraph, DType, FrozenNode, LazyTensor};
use lazytune::model::{Context, ModelConfig, Parameters, Tokens};
use lazytune::plan::{Plan, compile};
use lazytune::train::{StepBuilder, StepKind};
use lazytune::{Error, Result};

use support::{Allocations, CountingAllocator, adapters, allocations, step_builder};
use twins::{Interner, LockedGraph, ShardedGraph, micro_batch, replay};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// SmolLM2-135M's numbers.
const CONFIG: &str = r#"{
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536,
    "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
    "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 100000, "tie_word_embeddings": true
}"#;
const ROWS: usize = 4;
const SEQUENCE: usize = 512;
const THREADS: [usize; 3] = [1, 2, 4];

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let config = ModelConfig::parse(CONFIG.as_bytes())?;
    let builder = step_builder(&config, adapters(&config)?, SEQUENCE);
    let executor = AsyncGraphExecutor::new(Box::new(CpuDevice::new(CpuOptions::default())?))?;
    let step = builder.build(StepKind::Only, ROWS, SEQUENCE, executor.target())?;
    let parts: Vec<Vec<FrozenNode>> = (0..4).map(|part| micro_batch(&step.graph, part)).collect();
    report(&builder, &executor, &parts)?;
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1500))
        .configure_from_args();
    interning(&mut criterion, &parts);
    forward(&mut criterion, &builder);
    steps(&mut criterion, &builder, &executor);
    criterion.final_summary();
    Ok(())
}

/// Runs `work` for 0..count on as many threads.
fn on_threads(count: usize, work: impl Fn(usize) + Sync) {
    if count == 1 {
        return work(0);
    }
    std::thread::scope(|scope| {
        let work = &work;
        for part in 0..count {
            scope.spawn(move || work(part));
        }
    });
}

fn fill<G: Interner>(graph: &G, parts: &[Vec<FrozenNode>]) {
    on_threads(parts.len(), |part| replay(graph, &parts[part]));
}

fn interning(criterion: &mut Criterion, parts: &[Vec<FrozenNode>]) {
    let mut group = criterion.benchmark_group("interning");
    for threads in THREADS {
        let parts = &parts[..threads];
        group.throughput(Throughput::Elements(parts.iter().map(|nodes| nodes.len() as u64).sum()));
        group.bench_function(BenchmarkId::new("RwLock<HashMap>", threads), |bencher| {
            let build = |graph: LockedGraph| {
                fill(&graph, parts);
                graph
            };
            bencher.iter_batched(LockedGraph::default, build, BatchSize::LargeInput);
        });
        group.bench_function(BenchmarkId::new("DashMap", threads), |bencher| {
            let build = |graph: ShardedGraph| {
                fill(&graph, parts);
                graph
            };
            bencher.iter_batched(ShardedGraph::default, build, BatchSize::LargeInput);
        });
    }
    group.finish();
}

/// The hidden states of micro-batch `part`, over weights that all parts share.
fn hidden_states(graph: &Arc<ComputationGraph>, builder: &StepBuilder, part: usize) -> LazyTensor {
    let parameters = Parameters::new(graph, &builder.trained, builder.dtype, None);
    let input = |name: &str| graph.input(&format!("{name}.{part}"), &[ROWS * SEQUENCE], DType::U32);
    let tokens = Tokens {
        batch: ROWS,
        seq: SEQUENCE,
        input_ids: input("input_ids"),
        positions: input("positions"),
        max_positions: builder.max_positions,
        context: Context::Segments(input("segments")),
    };
    builder.decoder.hidden_states(&parameters, &tokens)
}

fn forward(criterion: &mut Criterion, builder: &StepBuilder) {
    let mut group = criterion.benchmark_group("forward");
    for threads in THREADS {
        group.bench_function(BenchmarkId::new("ComputationGraph", threads), |bencher| {
            let build = |graph: Arc<ComputationGraph>| {
                on_threads(threads, |part| {
                    black_box(hidden_states(&graph, builder, part));
                });
                graph
            };
            bencher.iter_batched(ComputationGraph::new, build, BatchSize::LargeInput);
        });
    }
    group.finish();
}

/// A step's plan from scratch.
fn compiled(builder: &StepBuilder, executor: &AsyncGraphExecutor) -> Result<Plan> {
    let step = builder.build(StepKind::Only, ROWS, SEQUENCE, executor.target())?;
    compile(step.graph, step.read_back, executor.target())
}

/// A step's plan from the cache.
fn cached(builder: &StepBuilder, executor: &AsyncGraphExecutor) -> Result<Arc<Plan>> {
    builder.plan(executor, StepKind::Only, ROWS, SEQUENCE)
}

fn steps(criterion: &mut Criterion, builder: &StepBuilder, executor: &AsyncGraphExecutor) {
    let mut group = criterion.benchmark_group("step");
    group.bench_function("build", |bencher| {
        bencher.iter(|| builder.build(StepKind::Only, ROWS, SEQUENCE, executor.target()));
    });
    group.bench_function("build and plan", |bencher| bencher.iter(|| compiled(builder, executor)));
    group.bench_function("plan reuse", |bencher| bencher.iter(|| cached(builder, executor)));
    group.finish();
}

/// Prints how much is built, and what one build asks of the allocator.
fn report(builder: &StepBuilder, executor: &AsyncGraphExecutor, parts: &[Vec<FrozenNode>]) -> Result<()> {
    let (locked, sharded) = (LockedGraph::default(), ShardedGraph::default());
    cached(builder, executor)?;
    let rows = [
        ("interning: RwLock<HashMap>", allocations(|| replay(&locked, &parts[0])).1),
        ("interning: DashMap", allocations(|| replay(&sharded, &parts[0])).1),
        ("forward: ComputationGraph", allocations(|| hidden_states(&ComputationGraph::new(), builder, 0)).1),
        ("step: build and plan", allocations(|| compiled(builder, executor)).1),
        ("step: plan reuse", allocations(|| cached(builder, executor)).1),
    ];
    let mut out = stdout().lock();
    let mut line = |text: String| writeln!(out, "{text}").map_err(|e| Error::device(e.to_string()));
    line(format!("a step has {} nodes ({} and {} interned)", parts[0].len(), locked.len(), sharded.len()))?;
    line(format!("{:28} {:>12} {:>10}", "one build", "allocations", "KiB"))?;
    for (name, Allocations { count, bytes }) in rows {
        line(format!("{name:28} {count:>12} {:>10}", bytes / 1024))?;
    }
    Ok(())
}
