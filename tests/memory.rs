//! What a step keeps, what it computes twice, and what it computes once for several readers.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use std::sync::Arc;

use lazytune::adapter::{AdaptedLinear, AdapterSpec};
use lazytune::executor::{CpuOptions, CpuTarget};
use lazytune::graph::{FrozenNode, Operation};
use lazytune::model::Trained;
use lazytune::optim::{Schedule, ScheduleShape};
use lazytune::plan::Plan;
use lazytune::train::{NamedTensors, PlannedMemory, StepBuilder, StepKind, Trainer};
use support::steps::{adapters, builder, initial_values, loader, model, spec};
use support::{block_on, executor, two_threads};

/// Trained values after a few steps with dropout, and the plan of the last.
fn trained(options: CpuOptions, memory_budget: Option<u64>) -> (NamedTensors, Arc<Plan>) {
    let model = model();
    let builder = StepBuilder { memory_budget, ..deep(6, &AdapterSpec { dropout: 0.1, ..spec() }) };
    let executor = executor(options);
    let weights = model.weight_loader();
    // Every layer has the weights of the first.
    let first_layer = move |name: &str, tensor| match name.split_once("layers.").map(|(_, rest)| rest) {
        Some(rest) => {
            let (_, name) = rest.split_once('.').unwrap();
            weights(&format!("model.layers.0.{name}"), tensor)
        }
        None => weights(name, tensor),
    };
    block_on(executor.set_weights(Arc::new(first_layer))).unwrap();
    let initial = initial_values(&builder.trained);
    let schedule = Schedule {
        shape: ScheduleShape::Constant,
        peak: 1e-2,
        minimum: 0.0,
        warmup_steps: 0,
        total_steps: 4,
    };
    let mut trainer = block_on(Trainer::new(executor, builder, schedule, 1, initial)).unwrap();
    let mut loader = loader(&[64; 8]);
    for _ in 0..4 {
        block_on(trainer.step(&loader.next_window().unwrap(), 0.0)).unwrap();
    }
    let batch = loader.next_window().unwrap().batches.remove(0);
    let plan = trainer.builder.plan(&trainer.executor, StepKind::Only, batch.rows, batch.sequence).unwrap();
    (block_on(trainer.trained_values()).unwrap(), plan)
}

#[test]
fn what_is_recomputed_saves_memory_and_changes_no_bit() {
    let (expected, everything_kept) = trained(CpuOptions { rematerialize: false, ..two_threads() }, None);
    assert_eq!(everything_kept.recomputed.operations, 0);
    let (values, cheap) = trained(two_threads(), None);
    assert!(values == expected, "cheap recomputation changes the trained values");
    assert!(cheap.arena_bytes < everything_kept.arena_bytes && cheap.recomputed.operations > 0);
    let (values, smallest) = trained(two_threads(), Some(1));
    assert!(values == expected, "recomputing everything that can be changes the trained values");
    assert!(smallest.arena_bytes <= cheap.arena_bytes);
    assert!(smallest.recomputed.operations > cheap.recomputed.operations);
}

/// The golden model with more layers, all of them adapted.
fn deep(layers: usize, spec: &AdapterSpec) -> StepBuilder {
    let model = model();
    let Trained::Adapters(adapted) = adapters(&model, spec) else { unreachable!() };
    let of_layer = |layer: usize| {
        let renamed = move |(path, linear): (&String, &AdaptedLinear)| {
            let path = path.strip_prefix("model.layers.0.")?;
            let path = format!("model.layers.{layer}.{path}");
            Some((path.clone(), AdaptedLinear { path, ..linear.clone() }))
        };
        adapted.pairs.iter().filter_map(renamed).collect::<Vec<_>>()
    };
    let trained = Trained::Adapters((0..layers).flat_map(of_layer).collect());
    let mut builder = builder(&model, trained);
    builder.decoder.layer_attention.resize(layers, builder.decoder.layer_attention[0]);
    builder
}

#[test]
fn a_budget_is_met_by_recomputing_as_little_as_it_takes() {
    let target = CpuTarget(two_threads());
    let plan = |memory_budget| {
        let builder = StepBuilder { memory_budget, ..deep(12, &spec()) };
        builder.compile(StepKind::Only, 2, 64, &target).unwrap()
    };
    let cheap = plan(None);
    let resident = PlannedMemory::of(&cheap, &target).total - cheap.arena_bytes;
    let mut flops = cheap.recomputed.cost.flops;
    for percent in [100, 85, 70, 55] {
        let arena = cheap.arena_bytes * percent / 100;
        let plan = plan(Some((resident + arena) as u64));
        assert!(plan.arena_bytes <= arena, "{percent}%: {} of {arena} bytes", plan.arena_bytes);
        assert!(plan.recomputed.cost.flops >= flops, "{percent}% costs less than more memory does");
        flops = plan.recomputed.cost.flops;
    }
    assert!(flops > cheap.recomputed.cost.flops);
}

#[test]
fn adapters_that_share_an_input_share_its_products() {
    let model = model();
    let products = |options: CpuOptions| {
        let target = CpuTarget(options);
        let step = builder(&model, adapters(&model, &spec()));
        let plan = step.compile(StepKind::Only, 1, 64, &target).unwrap();
        let is_product = |node: &&FrozenNode| matches!(node.operation, Operation::MatMul { .. });
        plan.graph.nodes().iter().filter(is_product).count()
    };
    // Per layer, q, k, v make one product of three, gate and up one of two: for u = x A^T and for dA = du^T x each.
    let apart = products(CpuOptions { merge: false, ..two_threads() });
    assert_eq!(products(two_threads()), apart - model.decoder.layers() * 2 * (2 + 1));
}
