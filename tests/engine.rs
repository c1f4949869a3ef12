//! Properties of graph, passes, plan and executor on random graphs.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::sync::Arc;

use lazytune::executor::{CpuOptions, Sequential, StepInputs};
use lazytune::graph::{ComputationGraph, DType, FrozenGraph, LazyTensor, Operation, Shape, TensorType};
use lazytune::plan::{
    Place, Plan, Slot, assign_offsets, compute_execution_batches, lower_bound, runs_every_step,
};
use proptest::prelude::*;
use support::{Random, block_on, compute, executor, plan, relative_error, two_threads};

const ROWS: usize = 6;
const WIDTH: usize = 8;

/// A graph of matrices [ROWS, WIDTH] and weights [WIDTH, WIDTH], grown at random from `seed`.
fn random_graph(graph: &Arc<ComputationGraph>, seed: u64, dtype: DType) -> Vec<LazyTensor> {
    let mut random = Random::new(seed);
    let mut values: Vec<LazyTensor> =
        (0..3).map(|i| graph.input(&format!("x{i}"), &[ROWS, WIDTH], dtype)).collect();
    let weights: Vec<LazyTensor> =
        (0..2).map(|i| graph.input(&format!("w{i}"), &[WIDTH, WIDTH], dtype)).collect();
    let gain = graph.input("gain", &[WIDTH], dtype);
    for _ in 0..random.below(30) + 3 {
        let x = values[random.below(values.len())].clone();
        let y = values[random.below(values.len())].clone();
        let weight = &weights[random.below(weights.len())];
        let value = match random.below(13) {
            0 => x.plus(&y),
            1 => x.times(&y),
            2 => x.affine(0.5, 0.25).affine(2.0, 0.0),
            3 => x.linear(weight),
            4 => x.linear(weight).plus(&y),
            5 => x.linear(weight).plus(&y.slice(1, 0, 2).matmul(&weight.slice(0, 0, 2))),
            6 => x.rms_norm(&gain, 1e-2),
            7 => x.swiglu(&y),
            8 => x.reshape(&[ROWS * WIDTH]).reshape(&[ROWS, WIDTH]),
            9 => x.permute(&[1, 0]).permute(&[1, 0]).minus(&y),
            10 => x.sum(1).broadcast_to(&[ROWS, WIDTH]).tanh(),
            11 => x.slice(1, 0, 3).concat(1, &[&y.slice(1, 3, WIDTH - 3)]),
            _ => x.plus(&x.filled(0.0)).times(&x.filled(1.0)),
        };
        values.push(value);
    }
    values.split_off(values.len() - 2)
}

fn inputs(seed: u64) -> StepInputs {
    let mut random = Random::new(seed ^ 0x5eed);
    let shapes = [("x0", [ROWS, WIDTH]), ("x1", [ROWS, WIDTH]), ("x2", [ROWS, WIDTH])];
    let weights = [("w0", [WIDTH, WIDTH]), ("w1", [WIDTH, WIDTH])];
    let tensor = |dims: &[usize]| TensorType::new(Shape::new(dims).unwrap(), DType::F32);
    let mut inputs: StepInputs = shapes
        .iter()
        .chain(&weights)
        .map(|(name, dims)| ((*name).to_owned(), random.tensor(tensor(dims))))
        .collect();
    inputs.insert("gain".into(), random.tensor(tensor(&[WIDTH])));
    inputs
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn optimized_equals_plain(seed in any::<u64>()) {
        let executor = executor(two_threads());
        let optimized = random_graph(&ComputationGraph::new(), seed, DType::F32);
        let exact = random_graph(&ComputationGraph::new(), seed, DType::F64);
        let single = inputs(seed);
        let double = single.iter().map(|(name, value)| (name.clone(), value.to_dtype(DType::F64))).collect();
        let found = compute(&executor, &optimized, &single, false);
        let expected = compute(&executor, &exact, &double, true);
        for (found, expected) in found.iter().zip(&expected) {
            let error = relative_error(&found.to_f64(), &expected.to_f64(), 1.0);
            prop_assert!(error < 1e-4, "relative error {error:e}");
        }
    }

    #[test]
    fn parallel_equals_sequential_bit_for_bit(seed in any::<u64>(), width in 1usize..9) {
        let roots = random_graph(&ComputationGraph::new(), seed, DType::F32);
        let run = |options: CpuOptions, one_by_one: bool| {
            let executor = executor(options);
            if one_by_one {
                block_on(executor.observe(Box::new(Sequential))).unwrap();
            }
            compute(&executor, &roots, &inputs(seed), false)
        };
        let parallel = run(CpuOptions { threads: 3, batch_size_hint: width, ..CpuOptions::default() }, false);
        let sequential = run(CpuOptions { threads: 1, batch_size_hint: width, ..CpuOptions::default() }, true);
        prop_assert_eq!(&parallel, &sequential);
        let recomputed = run(CpuOptions { threads: 2, tensor_cache: false, ..CpuOptions::default() }, false);
        prop_assert_eq!(&parallel, &recomputed);
    }

    #[test]
    fn batches_respect_dependencies_and_width(seed in any::<u64>(), width in 1usize..6) {
        let roots = random_graph(&ComputationGraph::new(), seed, DType::F32);
        let graph = roots[0].graph().freeze(&roots).unwrap();
        let runs = runs_every_step(&graph, true);
        let batches = compute_execution_batches(&graph, &runs, width);
        let mut done = runs.iter().map(|runs| !runs).collect::<Vec<_>>();
        for batch in &batches {
            prop_assert!(!batch.is_empty() && batch.len() <= width);
            for &index in batch {
                prop_assert!(ready(&graph, &done, index), "%{index} runs before its inputs");
            }
            batch.iter().for_each(|&index| done[index] = true);
        }
        prop_assert!(done.into_iter().all(|done| done));
    }

    #[test]
    fn slots_never_overlap_while_live(seed in any::<u64>(), width in 1usize..6) {
        let roots = random_graph(&ComputationGraph::new(), seed, DType::F32);
        let executor = executor(CpuOptions { batch_size_hint: width, ..two_threads() });
        let plan = plan(&executor, &roots, roots.len(), false);
        let slots = slots(&plan);
        check_disjoint(&slots, plan.arena_bytes)?;
    }

    #[test]
    fn random_slots_never_overlap_while_live(lives in prop::collection::vec((1usize..5000, 0usize..40, 0usize..12), 1..80)) {
        let mut slots: Vec<Slot> = lives
            .iter()
            .map(|&(bytes, first, length)| Slot { offset: 0, bytes, first, last: first + length })
            .collect();
        let total = assign_offsets(&mut slots);
        check_disjoint(&slots, total)?;
        prop_assert!(total >= lower_bound(&slots));
    }

    #[test]
    fn freezing_does_not_depend_on_who_built_when(seed in any::<u64>()) {
        let alone = ComputationGraph::new();
        let expected: Vec<LazyTensor> = (0..4).flat_map(|part| random_graph(&alone, seed ^ part, DType::F32)).collect();
        let shared = ComputationGraph::new();
        let roots: Vec<Vec<LazyTensor>> = std::thread::scope(|scope| {
            let build = |part| { let shared = &shared; move || random_graph(shared, seed ^ part, DType::F32) };
            let threads: Vec<_> = (0..4).map(|part| scope.spawn(build(part))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let together = shared.freeze(&roots.concat()).unwrap();
        let expected = alone.freeze(&expected).unwrap();
        prop_assert_eq!(together.fingerprint(), expected.fingerprint());
        prop_assert_eq!(together.nodes(), expected.nodes());
    }
}

fn ready(graph: &FrozenGraph, done: &[bool], index: usize) -> bool {
    graph.nodes()[index].inputs.iter().all(|&input| {
        let mut at = input;
        while graph.nodes()[at].operation.is_view() {
            at = graph.nodes()[at].inputs[0];
        }
        done[at]
    })
}

fn slots(plan: &Plan) -> Vec<Slot> {
    let slot = |place: &Place| if let Place::Arena(slot) = place { Some(*slot) } else { None };
    plan.places.iter().filter_map(slot).collect()
}

fn check_disjoint(slots: &[Slot], arena_bytes: usize) -> Result<(), TestCaseError> {
    for (index, slot) in slots.iter().enumerate() {
        prop_assert!(slot.offset + slot.bytes <= arena_bytes);
        for other in &slots[..index] {
            let apart = slot.offset + slot.bytes <= other.offset || other.offset + other.bytes <= slot.offset;
            prop_assert!(apart || !slot.coexists(other), "{slot:?} overlaps {other:?}");
        }
    }
    Ok(())
}

#[test]
fn equal_expressions_are_one_node() {
    let graph = ComputationGraph::new();
    let x = graph.input("x", &[2, 2], DType::F32);
    let a = x.plus(&x).exp();
    let b = x.plus(&x).exp();
    assert_eq!(a.node_id(), b.node_id());
    assert_eq!(graph.len(), 3);
}

#[test]
fn dropout_masks_with_other_streams_stay_apart() {
    let graph = ComputationGraph::new();
    let seed = graph.input("seed", &[2], DType::U32);
    let mask = |stream| {
        let (probability, shape) = (lazytune::graph::Scalar(0.5), Shape::new(&[4]).unwrap());
        seed.then(Operation::DropoutMask { stream, probability, shape, dtype: DType::F32 }, &[])
    };
    assert_ne!(mask(0).node_id(), mask(1).node_id());
    assert_eq!(mask(1).node_id(), mask(1).node_id());
}

#[test]
fn a_misfit_is_reported_with_the_line_that_built_it() {
    let graph = ComputationGraph::new();
    let x = graph.input("x", &[2, 3], DType::F32);
    let y = graph.input("y", &[3, 2], DType::F32);
    let line = line!() + 1;
    let sum = x.plus(&y);
    let message = graph.freeze(&[sum.exp().exp()]).unwrap_err().to_string();
    assert!(message.contains(&format!("engine.rs:{line}")), "{message}");
    assert!(message.contains("f32[2, 3]") && message.contains("f32[3, 2]"), "{message}");
}

#[test]
fn an_update_waits_for_those_who_read_the_old_value() {
    let graph = ComputationGraph::new();
    let state = graph.state("w", &[4], DType::F32);
    let x = graph.input("x", &[4], DType::F32);
    let updated = state.then(Operation::Assign, &[&x]);
    let late_reader = x.exp().exp().exp().times(&state);
    let after = updated.affine(2.0, 0.0);
    let executor = executor(two_threads());
    let value = |v: f32| lazytune::executor::HostTensor::f32(&[4], vec![v; 4]).unwrap();
    block_on(executor.set_states(vec![("w".into(), value(3.0))])).unwrap();
    let inputs = StepInputs::from([("x".into(), value(0.0))]);
    let outputs = compute(&executor, &[late_reader, after], &inputs, false);
    let expected = f64::exp(std::f64::consts::E) * 3.0;
    assert!((outputs[0].to_f64()[0] - expected).abs() < 1e-4, "the reader saw the new value");
    assert_eq!(outputs[1].to_f64(), vec![0.0; 4]);
    assert_eq!(block_on(executor.states(vec!["w".into()])).unwrap()[0], value(0.0));
}
