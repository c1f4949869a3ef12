//! What a training step computes and what it leaves out, and what a whole run keeps to.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use std::collections::BTreeSet;
use std::path::Path;

use lazytune::adapter::{AdapterSpec, TargetModules};
use lazytune::executor::{CpuOptions, CpuTarget, HostTensor, StepInputs, kind_of};
use lazytune::graph::{ComputationGraph, DType, FrozenGraph, FrozenNode, Operation, Scalar, Shape};
use lazytune::model::Trained;
use lazytune::optim::{Schedule, ScheduleShape};
use lazytune::plan::compile;
use lazytune::train::model::OpenModel;
use lazytune::train::{StepKind, Trainer};
use serde_json::json;
use support::steps::{adapters, builder, initial_values, loader, model, spec};
use support::workspace::{Outcome, Workspace, field, golden, steps, tensors};
use support::{block_on, compute, executor, relative_error, two_threads};

/// Three rows of 19 tokens: no activation then has the shape of a weight.
const ROWS: usize = 3;
const SEQUENCE: usize = 19;

/// A step's graph after all passes.
fn optimized(model: &OpenModel, trained: Trained, kind: StepKind) -> FrozenGraph {
    let target = CpuTarget(CpuOptions::default());
    let step = builder(model, trained).build(kind, ROWS, SEQUENCE, &target).unwrap();
    compile(step.graph, step.read_back, &target).unwrap().graph
}

/// The operations of a graph that `wanted` picks.
fn count(graph: &FrozenGraph, wanted: fn(&Operation) -> bool) -> usize {
    graph.nodes().iter().filter(|node| wanted(&node.operation)).count()
}

/// Shapes of frozen weights, both ways round, and of what is computed.
fn shapes(model: &OpenModel, graph: &FrozenGraph) -> (BTreeSet<Vec<usize>>, BTreeSet<Vec<usize>>) {
    let specs = model.source.config.tensor_specs();
    let weights = specs.into_iter().map(|spec| spec.shape);
    let both = weights.flat_map(|shape| [shape.iter().rev().copied().collect(), shape]);
    let computed = graph.nodes().iter().filter(|node| {
        node.operation.computes() && !matches!(node.operation, Operation::Pack | Operation::AdamW(_))
    });
    let outputs = computed.flat_map(|node| node.outputs.iter().map(|output| output.shape.dims().to_vec()));
    (both.collect(), outputs.collect())
}

#[test]
fn no_frozen_weight_gets_a_gradient() {
    let model = model();
    for kind in [StepKind::Only, StepKind::First, StepKind::Middle, StepKind::Last] {
        let graph = optimized(&model, adapters(&model, &spec()), kind);
        let (weights, computed) = shapes(&model, &graph);
        let common: Vec<_> = weights.intersection(&computed).collect();
        assert!(common.is_empty(), "{kind:?} computes values in the shapes of frozen weights: {common:?}");
        assert_eq!(
            count(&graph, |operation| matches!(operation, Operation::ProjectedCrossEntropyWeightGrad { .. })),
            0
        );
        assert_eq!(
            count(&graph, |operation| matches!(
                operation,
                Operation::RmsNormGrad { weight_gradient: true, .. }
            )),
            0
        );

        let readers = graph.nodes().iter().filter(|node| {
            node.inputs.iter().any(|&input| matches!(graph.nodes()[input].operation, Operation::Frozen(_)))
        });
        let kinds: BTreeSet<String> = readers.map(|node| kind_of(&node.operation)).collect();
        for kind in &kinds {
            let expected = ["pack", "rms_norm", "embedding", "linear", "projected_cross_entropy"];
            let plain = kind.to_lowercase().replace('_', "");
            let known = expected.iter().any(|name| plain.starts_with(&name.replace('_', "")));
            assert!(known, "{kind} reads a frozen weight");
        }
    }
    // The same test sees the gradients where all weights are trained.
    let (weights, computed) = shapes(&model, &optimized(&model, Trained::All, StepKind::Only));
    assert_eq!(weights.iter().filter(|shape| shape.len() > 1 && shape[0] != shape[1]).count(), 6);
    assert!(weights.intersection(&computed).count() >= 4, "{computed:?}");
}

fn attention_gradients(graph: &FrozenGraph) -> usize {
    count(graph, |operation| matches!(operation, Operation::AttentionGrad(_)))
}

fn norm_gradients(graph: &FrozenGraph) -> usize {
    count(graph, |operation| matches!(operation, Operation::RmsNormGrad { .. }))
}

fn gate_gradients(graph: &FrozenGraph) -> usize {
    count(graph, |operation| matches!(operation, Operation::SwiGluGrad | Operation::LinearGatedGrad { .. }))
}

#[test]
fn nothing_is_computed_below_the_lowest_trained_layer() {
    let model = model();
    let layers = model.decoder.layers();
    let graph = |spec: &AdapterSpec| optimized(&model, adapters(&model, spec), StepKind::Only);
    // The backward pass ends at the projections of layer 0: no gradient leaves its first norm.
    let all = graph(&spec());
    assert_eq!(
        [attention_gradients(&all), gate_gradients(&all), norm_gradients(&all)],
        [layers, layers, 2 * layers]
    );

    let last = AdapterSpec { layers_to_transform: Some(vec![layers - 1]), ..spec() };
    let last = graph(&last);
    assert_eq!([attention_gradients(&last), gate_gradients(&last), norm_gradients(&last)], [1, 1, 2]);

    // A single projection at the very top leaves only the head and the last norm to differentiate.
    let target_modules = TargetModules::Regex(format!(r".*layers\.{}\.mlp\.down_proj", layers - 1));
    let top = graph(&AdapterSpec { target_modules, ..spec() });
    assert_eq!([attention_gradients(&top), gate_gradients(&top), norm_gradients(&top)], [0, 0, 1]);
    let forward = optimized(&model, Trained::Nothing, StepKind::Evaluate);
    let linear =
        |graph: &FrozenGraph| count(graph, |operation| matches!(operation, Operation::Linear { .. }));
    assert_eq!(linear(&top), linear(&forward), "a linear layer is run backwards");
}

#[test]
fn gated_units_take_their_gradient_block_by_block_and_come_out_of_it_again() {
    let model = model();
    let layers = model.decoder.layers();
    let found = |options: CpuOptions| {
        let builder = builder(&model, adapters(&model, &spec()));
        let plan = builder.compile(StepKind::Only, ROWS, SEQUENCE, &CpuTarget(options)).unwrap();
        let joined = |value: bool| {
            let joined = |node: &&FrozenNode| matches!(node.operation, Operation::LinearGatedGrad { value: found, .. } if found == value);
            plan.graph.nodes().iter().filter(joined).count()
        };
        let units = count(&plan.graph, |operation| *operation == Operation::SwiGlu);
        [joined(true), joined(false), units]
    };
    let plain = CpuOptions { fuse: false, rematerialize: false, ..CpuOptions::default() };
    assert_eq!(found(CpuOptions::default()), [layers, 0, layers]);
    assert_eq!(found(CpuOptions { rematerialize: false, ..CpuOptions::default() }), [0, layers, layers]);
    assert_eq!(found(plain), [0, 0, layers]);
}

#[test]
fn an_evaluation_computes_no_gradient_and_drops_nothing() {
    let model = model();
    let graph =
        optimized(&model, adapters(&model, &AdapterSpec { dropout: 0.5, ..spec() }), StepKind::Evaluate);
    let unwanted = |operation: &Operation| {
        let gradient = kind_of(operation).to_lowercase().contains("grad");
        let is_loss = matches!(operation, Operation::ProjectedCrossEntropyGrad { .. });
        (gradient && !is_loss)
            || operation.updates_state()
            || matches!(operation, Operation::DropoutMask { .. })
    };
    let found: Vec<_> = graph.nodes().iter().map(|node| &node.operation).filter(|op| unwanted(op)).collect();
    assert!(found.is_empty(), "{found:?}");
    assert!(graph.nodes().iter().all(|node| node.operation != Operation::Input("dropout_seed".into())));
}

#[test]
fn every_adapted_layer_has_its_own_dropout_mask() {
    let model = model();
    let trained = adapters(&model, &AdapterSpec { dropout: 0.25, ..spec() });
    let graph = optimized(&model, trained, StepKind::Only);
    let stream = |operation: &Operation| match operation {
        Operation::DropoutMask { stream, probability, .. } => {
            assert_eq!(*probability, Scalar(0.25));
            Some(*stream)
        }
        _ => None,
    };
    let streams: Vec<u32> = graph.nodes().iter().filter_map(|node| stream(&node.operation)).collect();
    let distinct: BTreeSet<u32> = streams.iter().copied().collect();
    let adapted = model.decoder.layers() * 7;
    assert_eq!((streams.len(), distinct.len()), (adapted, adapted), "backward reuses the forward's masks");
}

#[test]
fn dropout_masks_differ_between_layers_and_steps() {
    const PROBABILITY: f64 = 0.3;
    let graph = ComputationGraph::new();
    let seed = graph.input("dropout_seed", &[2], DType::U32);
    let shape = Shape::new(&[100, 100]).unwrap();
    let mask = |stream| {
        let probability = Scalar(PROBABILITY);
        seed.then(Operation::DropoutMask { stream, probability, shape, dtype: DType::F32 }, &[])
    };
    let masks = [mask(0), mask(1)];
    let executor = executor(two_threads());
    let at = |words: [u32; 2]| -> Vec<Vec<f64>> {
        let inputs =
            StepInputs::from([("dropout_seed".into(), HostTensor::u32(&[2], words.to_vec()).unwrap())]);
        compute(&executor, &masks, &inputs, false).iter().map(HostTensor::to_f64).collect()
    };
    let all: Vec<Vec<f64>> = [[42, 0], [42, 1], [43, 0]].into_iter().flat_map(at).collect();
    assert_eq!(at([42, 1]), all[2..4], "the same seed gives the same bits");
    for (index, mask) in all.iter().enumerate() {
        let zeros = mask.iter().filter(|&&value| value == 0.0).count() as f64 / mask.len() as f64;
        assert!((zeros - PROBABILITY).abs() < 0.03, "{zeros} of the elements are dropped");
        assert!(mask.iter().all(|&v| v == 0.0 || (v - 1.0 / (1.0 - PROBABILITY)).abs() < 1e-6));
        for other in &all[..index] {
            // Independent masks agree on p^2 + (1 - p)^2 = 0.58 of the elements.
            let equal = mask.iter().zip(other).filter(|(a, b)| a == b).count() as f64 / mask.len() as f64;
            assert!((equal - 0.58).abs() < 0.03, "two masks agree on {equal} of the elements");
        }
    }
}

#[test]
fn a_thousand_steps_over_three_shapes_compile_three_plans() {
    let model = model();
    let trained = adapters(&model, &spec());
    let executor = executor(CpuOptions { threads: 1, ..CpuOptions::default() });
    block_on(executor.set_weights(model.weight_loader())).unwrap();
    let initial = initial_values(&trained);
    let schedule = Schedule {
        shape: ScheduleShape::Constant,
        peak: 1e-3,
        minimum: 0.0,
        warmup_steps: 0,
        total_steps: 1000,
    };
    let mut trainer =
        block_on(Trainer::new(executor, builder(&model, trained), schedule, 1, initial)).unwrap();
    let mut loader = loader(&[9, 14, 25, 31, 44]);
    for _ in 0..1000 {
        let window = loader.next_window().unwrap();
        block_on(trainer.step(&window, 0.0)).unwrap();
    }
    let counts = trainer.executor.plan_counts();
    assert_eq!((counts.misses, counts.hits), (3, 997));
}

/// Rows of different lengths, of which different parts are supervised.
fn rows(count: usize) -> String {
    let row = |row: usize| {
        let length = 4 + row * 11 % 26;
        let ids: Vec<usize> = (0..length).map(|at| (at * 13 + row * 5) % 60 + 3).collect();
        let labels: Vec<i64> =
            ids.iter().enumerate().map(|(at, &id)| if at <= row % 4 { -100 } else { id as i64 }).collect();
        json!({"input_ids": ids, "labels": labels}).to_string() + "\n"
    };
    (0..count).map(row).collect()
}

/// Trains on `rows.jsonl` from the golden adapter, with changes, into the folder `run`.
fn train(workspace: &Workspace, run: &str, changes: &[&str]) -> Outcome {
    let text = format!(
        "[model]\npath = {:?}\nthreads = 2\n[data]\ntrain = [\"rows.jsonl\"]\nvalidation = \"none\"\nmax_length = 32\n\
         [adapter]\n[optimizer]\nlearning_rate = 1e-3\n[schedule]\nname = \"constant\"\n\
         [train]\nmax_steps = 6\nsave_steps = 0\n",
        golden("gqa_tied/base")
    );
    workspace.write("run.toml", text);
    let mut arguments = vec!["train", "run.toml", "--run-dir", run];
    changes.iter().for_each(|change| arguments.extend(["--set", change]));
    workspace.run(&arguments)
}

fn losses(workspace: &Workspace, run: &str) -> Vec<f64> {
    field(&steps(&workspace.path(run).join("metrics.jsonl")), "loss")
}

/// Rows of these lengths, one a window, over and over.

#[test]
fn splitting_a_window_changes_nothing_but_rounding() {
    let workspace = Workspace::new();
    workspace.write("rows.jsonl", rows(19));
    let init = format!("adapter.init={:?}", golden("gqa_tied/adapter"));
    let run = |batch: usize, accumulation: usize| {
        let name = format!("{batch}x{accumulation}");
        let sizes = [
            format!("train.batch_size={batch}"),
            format!("train.gradient_accumulation_steps={accumulation}"),
            init.clone(),
        ];
        train(&workspace, &name, &sizes.each_ref().map(String::as_str)).exits(0);
        let weights = tensors(&workspace.path(&name).join("adapter/adapter_model.safetensors"));
        (losses(&workspace, &name), weights)
    };
    let (expected, weights) = run(4, 1);
    assert_eq!(expected.len(), 6);
    for (batch, accumulation) in [(2, 2), (1, 4)] {
        let (found, split) = run(batch, accumulation);
        let error = relative_error(&found, &expected, 0.0);
        assert!(error < 1e-5, "{batch}x{accumulation}: losses are {error:e} away");
        for (name, (_, values)) in &weights {
            let wide = |values: &[f32]| -> Vec<f64> { values.iter().map(|&v| f64::from(v)).collect() };
            let error = relative_error(&wide(&split[name].1), &wide(values), 0.0);
            assert!(error < 1e-4, "{batch}x{accumulation}: {name} is {error:e} away");
        }
    }
}

#[test]
fn a_seed_decides_every_bit_of_a_run() {
    let workspace = Workspace::new();
    workspace.write("rows.jsonl", rows(19));
    let run = |name: &str, seed: &str| {
        train(&workspace, name, &["adapter.dropout=0.2", "train.gradient_accumulation_steps=2", seed])
            .exits(0);
        let adapter = std::fs::read(workspace.path(name).join("adapter/adapter_model.safetensors")).unwrap();
        (losses(&workspace, name), adapter)
    };
    let first = run("a", "train.seed=1");
    assert_eq!(first, run("b", "train.seed=1"));
    assert_ne!(first.1, run("c", "train.seed=2").1);
    train(&workspace, "d", &["train.seed=1", "train.gradient_accumulation_steps=2"]).exits(0);
    assert_ne!(first.0[1..], losses(&workspace, "d")[1..], "dropout changed nothing");
}

/// Every number of every safetensors file of a checkpoint.
fn check_finite(checkpoint: &Path) {
    for file in ["adapter_model.safetensors", "optimizer.safetensors"] {
        for (name, (_, values)) in tensors(&checkpoint.join(file)) {
            assert!(values.iter().all(|value| value.is_finite()), "{name} of {file} is not finite");
        }
    }
}

#[test]
fn a_diverging_run_stops_names_its_rows_and_saves_the_state_before() {
    let workspace = Workspace::new();
    workspace.write("rows.jsonl", rows(19));
    for accumulation in ["train.gradient_accumulation_steps=1", "train.gradient_accumulation_steps=2"] {
        let run = accumulation.split('=').nth(1).unwrap();
        let changes = ["optimizer.learning_rate=1e25", "train.batch_size=2", accumulation];
        let outcome = train(&workspace, run, &changes).exits(1);
        let outcome = outcome.says(&["diverged", "rows.jsonl", "learning_rate"]);
        assert!(outcome.stdout.is_empty(), "{}", outcome.stdout);
        let saved = lazytune::checkpoint::latest(&workspace.path(run)).unwrap().expect("a checkpoint");
        check_finite(&saved);
        assert!(!workspace.path(run).join("adapter").exists(), "a diverged run has no result");
        let steps = steps(&workspace.path(run).join("metrics.jsonl"));
        assert!(field(&steps, "loss").iter().all(|loss| loss.is_finite()));
        assert_eq!(saved, workspace.path(run).join(format!("checkpoint-{}", steps.len())));
    }
}

#[test]
fn an_adapter_that_is_too_large_diverges_at_once_and_writes_nothing() {
    let workspace = Workspace::new();
    workspace.write("rows.jsonl", rows(5));
    let adapter = workspace.path("poisoned");
    std::fs::create_dir(&adapter).unwrap();
    std::fs::copy(golden("gqa_tied/adapter/adapter_config.json"), adapter.join("adapter_config.json"))
        .unwrap();
    let write = |value: f32| {
        let all = tensors(&golden("gqa_tied/adapter/adapter_model.safetensors"));
        let header = all.iter().map(|(name, (shape, _))| {
            (lazytune::tensor_file::TensorSpec::new(name, shape), lazytune::tensor_file::FloatType::F32)
        });
        let path = adapter.join("adapter_model.safetensors");
        let mut writer = lazytune::tensor_file::SafetensorsWriter::create(&path, header.collect()).unwrap();
        all.iter().for_each(|(name, (_, values))| writer.write(name, &vec![value; values.len()]).unwrap());
        writer.finish().unwrap();
    };
    let init = format!("adapter.init={adapter:?}");
    write(1e30);
    train(&workspace, "huge", &[&init]).exits(1).says(&["diverged", "step 1", "rows.jsonl"]);
    assert!(lazytune::checkpoint::latest(&workspace.path("huge")).unwrap().is_none());
    write(f32::NAN);
    train(&workspace, "nan", &[&init]).exits(1).says(&["NaN", "lora_A"]);
    assert!(!workspace.path("nan").exists(), "a run that cannot start leaves nothing");
}

/// Steps of the checkpoints in a run's folder.
fn checkpoints(workspace: &Workspace, run: &str) -> Vec<u64> {
    lazytune::checkpoint::list(&workspace.path(run)).unwrap().into_iter().map(|(step, _)| step).collect()
}

#[test]
fn old_checkpoints_are_deleted_as_the_limit_says() {
    let workspace = Workspace::new();
    workspace.write("rows.jsonl", rows(19));
    let kept = |run: &str, limit: &str| {
        train(&workspace, run, &["train.save_steps=1", limit]).exits(0);
        checkpoints(&workspace, run)
    };
    assert_eq!(kept("two", "train.save_total_limit=2"), [5, 6]);
    assert_eq!(kept("one", "train.save_total_limit=1"), [6]);
    assert_eq!(kept("all", "train.save_total_limit=0"), [1, 2, 3, 4, 5, 6]);
}
