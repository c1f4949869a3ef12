//! The frozen prefix cache changes no bit of a run, keeps to its bound, and saves the work it claims to.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lazytune::adapter::{AdapterSpec, LoraPair};
use lazytune::data::{Batch, Example, LoaderState, RowSource, Window};
use lazytune::executor::{HostTensor, Observer};
use lazytune::graph::DType;
use lazytune::metrics::Event;
use lazytune::model::{lora_a_name, lora_b_name};
use lazytune::optim::{Schedule, ScheduleShape};
use lazytune::plan::{Plan, cost};
use lazytune::train::model::OpenModel;
use lazytune::train::prefix::{FrozenPrefix, MemoryRows, Store};
use lazytune::train::{NamedTensors, StepBuilder, Trainer};
use serde_json::{Value, json};
use support::workspace::{Workspace, golden};
use support::{Random, block_on, executor, steps, two_threads};

/// Longer than a tile of attention, and than a block of rows of a matrix product.
const MAX_LENGTH: usize = 200;

fn model() -> OpenModel {
    OpenModel::named(golden("untied_odd/base").to_str().unwrap(), None).unwrap()
}

/// A trainer of the adapters of `layers`, with dropout.
fn trainer(layers: &[usize], dtype: DType) -> Trainer {
    let model = model();
    let spec = AdapterSpec { dropout: 0.2, layers_to_transform: Some(layers.to_vec()), ..steps::spec() };
    let layers = spec.resolve(&model.source.config.linear_modules()).unwrap();
    let mut values = NamedTensors::new();
    for layer in &layers {
        let pair = LoraPair::initial(3, layer);
        let tensor = |dims: [usize; 2], values| HostTensor::f32(&dims, values).unwrap();
        values.insert(lora_a_name(&layer.path), tensor([layer.rank, layer.in_features], pair.a));
        // Not zero, so that A has gradients from the first step on.
        let b = (0..pair.b.len()).map(|at| (at % 7) as f32 * 0.01 - 0.03).collect();
        values.insert(lora_b_name(&layer.path), tensor([layer.out_features, layer.rank], b));
    }
    let builder = steps::builder(&model, steps::adapters(&model, &spec));
    let builder = StepBuilder { dtype, max_positions: MAX_LENGTH, ..builder };
    let schedule = Schedule {
        shape: ScheduleShape::Constant,
        peak: 1e-2,
        minimum: 0.0,
        warmup_steps: 0,
        total_steps: 1000,
    };
    let executor = executor(two_threads());
    block_on(executor.set_weights(model.weight_loader())).unwrap();
    block_on(Trainer::new(executor, builder, schedule, 5, values)).unwrap()
}

fn cached(layers: &[usize], dtype: DType, limit: u64) -> Trainer {
    let mut trainer = trainer(layers, dtype);
    let prefix = trainer.builder.frozen_layers();
    trainer.prefix = Some(FrozenPrefix::new(prefix, Store::Memory(MemoryRows::new(limit))));
    trainer
}

/// Rows of these lengths with random tokens.
fn examples(lengths: &[usize]) -> Vec<Example> {
    let mut random = Random::new(17);
    let mut example = |(row, &length): (usize, &usize)| Example {
        input_ids: (0..length).map(|_| random.below(59) as u32).collect(),
        supervised: (0..length).map(|at| at % 3 != 1).collect(),
        source: RowSource { file: Arc::from(Path::new("rows.jsonl")), row: row + 1 },
        content_hash: row as u64,
    };
    lengths.iter().enumerate().map(&mut example).collect()
}

/// A window of batches; each batch lists its rows, each row the examples that are packed in it.
fn window(examples: &[Example], batches: &[&[&[usize]]]) -> Window {
    let collate = |rows: &&[&[usize]]| {
        let rows: Vec<Vec<&Example>> =
            rows.iter().map(|row| row.iter().map(|&at| &examples[at]).collect()).collect();
        Batch::collate(&rows, MAX_LENGTH)
    };
    let batches: Vec<Batch> = batches.iter().map(collate).collect();
    let state_after = LoaderState {
        epoch: 0,
        window: 0,
        seed: 0,
        sequences_per_window: 1,
        shuffle: false,
        packing: false,
        max_length: MAX_LENGTH,
        dataset: String::new(),
        stream: None,
    };
    Window {
        supervised_tokens: batches.iter().map(|batch| batch.supervised_tokens).sum(),
        tokens: batches.iter().map(|batch| batch.tokens).sum(),
        batches,
        state_after,
        epoch: 0.0,
        notices: Vec::new(),
    }
}

const LENGTHS: [usize; 8] = [3, 11, 17, 40, 64, 65, 130, 200];

/// Every row alone, beside shorter and longer ones, and packed with others.
fn windows(examples: &[Example]) -> Vec<Window> {
    let alone: Vec<Window> = (0..examples.len()).map(|row| window(examples, &[&[&[row]]])).collect();
    let mixed = [
        window(examples, &[&[&[0], &[7]], &[&[1], &[2], &[3]]]),
        window(examples, &[&[&[4], &[1]], &[&[6], &[5]], &[&[0]]]),
        window(examples, &[&[&[3, 4, 5], &[1, 0, 2]], &[&[6], &[1, 0, 2], &[2], &[7]]]),
        window(examples, &[&[&[7], &[6], &[5], &[4], &[3], &[2], &[1], &[0]]]),
    ];
    alone.into_iter().chain(mixed).collect()
}

/// Bits of losses, gradient norms and evaluations, and of what is trained in the end.
fn bits(trainer: &mut Trainer, windows: &[Window]) -> (Vec<u64>, Vec<Vec<u32>>) {
    let mut numbers = Vec::new();
    for window in windows {
        let report = block_on(trainer.step(window, 0.0)).unwrap();
        let evaluation = block_on(trainer.evaluate(&window.batches, 0.0)).unwrap();
        numbers.extend([report.loss, report.grad_norm, evaluation.eval_loss].map(f64::to_bits));
    }
    let values = block_on(trainer.trained_values()).unwrap().into_values();
    (numbers, values.map(|value| value.into_f32().iter().map(|v| v.to_bits()).collect()).collect())
}

#[test]
fn a_row_has_the_same_bits_whatever_stands_around_it() {
    for dtype in [DType::F32, DType::Bf16] {
        check_bits_of_rows(&trainer(&[2], dtype));
    }
}

fn check_bits_of_rows(trainer: &Trainer) {
    let examples = examples(&LENGTHS);
    let width = trainer.builder.decoder.hidden;
    let run = |batch: &Batch| block_on(trainer.run_prefix(2, batch)).unwrap().into_f32();
    let real = |hidden: &[f32], batch: &Batch, row: usize, tokens: usize| -> Vec<u32> {
        let start = row * batch.sequence * width;
        hidden[start..start + tokens * width].iter().map(|v| v.to_bits()).collect()
    };
    let alone: Vec<Vec<u32>> = examples
        .iter()
        .map(|example| {
            let batch = Batch::collate(&[vec![example]], MAX_LENGTH);
            real(&run(&batch), &batch, 0, example.len())
        })
        .collect();
    let mut random = Random::new(3);
    for _ in 0..20 {
        let rows: Vec<usize> = (0..1 + random.below(7)).map(|_| random.below(examples.len())).collect();
        let sequences: Vec<Vec<&Example>> = rows.iter().map(|&row| vec![&examples[row]]).collect();
        let batch = Batch::collate(&sequences, MAX_LENGTH);
        let hidden = run(&batch);
        for (at, &row) in rows.iter().enumerate() {
            let found = real(&hidden, &batch, at, examples[row].len());
            assert!(found == alone[row], "row {row} differs in {rows:?}");
        }
    }
}

#[test]
fn a_run_with_the_cache_has_the_bits_of_one_without() {
    let examples = examples(&LENGTHS);
    let windows = windows(&examples);
    for (layers, dtype) in [(&[2][..], DType::F32), (&[1, 2], DType::F32), (&[1, 2], DType::Bf16)] {
        let expected = bits(&mut trainer(layers, dtype), &windows);
        // All rows fit, some do, none does.
        for limit in [1 << 30, 40_000, 0] {
            let mut trainer = cached(layers, dtype, limit);
            let found = bits(&mut trainer, &windows);
            let counts = trainer.prefix_counts().unwrap();
            assert!(found == expected, "{dtype:?}, layers {layers:?}, at most {limit} bytes: {counts:?}");
            assert!(counts.bytes <= limit && counts.misses > 0);
            assert_eq!(counts.hits > 0, limit > 0, "{counts:?}");
        }
    }
}

#[test]
fn rows_beyond_the_bound_are_computed_again_and_the_user_is_told_once() {
    let examples = examples(&[16; 8]);
    let all: Vec<&[usize]> = vec![&[0], &[1], &[2], &[3], &[4], &[5], &[6], &[7]];
    let window = window(&examples, &[&all]);
    // 16 tokens x 24 numbers of 4 bytes: three rows fit.
    let mut trainer = cached(&[2], DType::F32, 3 * (16 * 24 * 4 + 128));
    let mut notices = Vec::new();
    for _ in 0..3 {
        block_on(trainer.step(&window, 0.0)).unwrap();
        let is_notice = |event: Event| match event {
            Event::Notice { message } => Some(message),
            _ => None,
        };
        notices.extend(trainer.take_events().into_iter().filter_map(is_notice));
    }
    let counts = trainer.prefix_counts().unwrap();
    assert_eq!((counts.rows, counts.hits, counts.misses), (3, 6, 18));
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert!(notices[0].contains("full with 3 rows"), "{notices:?}");
}

/// Floating-point operations of what ran.
struct Flops(Arc<Mutex<f64>>);

impl Observer for Flops {
    fn batch_done(&mut self, plan: &Plan, batch: usize, _took: Duration) {
        let batch = plan.batches[batch].iter();
        *self.0.lock().unwrap() += batch.map(|&index| cost(&plan.graph, index).flops).sum::<f64>();
    }
}

#[test]
fn the_second_epoch_runs_no_frozen_layer() {
    let examples = examples(&[64, 60, 33, 20]);
    let window = window(&examples, &[&[&[0], &[1]], &[&[2], &[3]]]);
    let flops = |trainer: &mut Trainer| {
        let total = Arc::new(Mutex::new(0.0));
        block_on(trainer.executor.observe(Box::new(Flops(total.clone())))).unwrap();
        block_on(trainer.step(&window, 0.0)).unwrap();
        *total.lock().unwrap()
    };
    let whole = flops(&mut trainer(&[2], DType::F32));
    let mut trainer = cached(&[2], DType::F32, 1 << 30);
    let (first, second) = (flops(&mut trainer), flops(&mut trainer));
    assert!(first < 1.05 * whole, "the first epoch costs {first} instead of {whole}");
    let prefix = |batch: &Batch| {
        let plan = trainer.builder.prefix_plan(&trainer.executor, 2, batch.rows, batch.sequence).unwrap();
        plan.cost().flops
    };
    assert_eq!(second, first - window.batches.iter().map(prefix).sum::<f64>());
    assert!(second < 0.8 * whole, "{second} of {whole}");
}

/// A run of the binary over rows of several lengths: metrics without what a clock decides, and the adapter's bytes.
fn run(workspace: &Workspace, name: &str, changes: &[&str], says: &[&str]) -> (Vec<Value>, Vec<u8>) {
    let row = |row: usize| {
        let ids: Vec<usize> = (0..5 + row * 7 % 23).map(|at| (at * 13 + row * 5) % 50 + 3).collect();
        json!({ "input_ids": ids }).to_string() + "\n"
    };
    workspace.write("rows.jsonl", (0..23).map(row).collect::<String>());
    workspace.write("held-out.jsonl", (23..27).map(row).collect::<String>());
    let text = format!(
        "[model]\npath = {:?}\nthreads = 2\n[data]\ntrain = [\"rows.jsonl\"]\nvalidation = [\"held-out.jsonl\"]\n\
         max_length = 32\n[adapter]\nr = 4\ndropout = 0.1\nlayers_to_transform = [2]\n[optimizer]\n\
         learning_rate = 2e-3\n[train]\nbatch_size = 2\ngradient_accumulation_steps = 2\nepochs = 3.0\neval_steps = 5\n\
         save_steps = 4\n",
        golden("untied_odd/base")
    );
    workspace.write("run.toml", text);
    let mut arguments = vec!["train", "run.toml", "--run-dir", name];
    changes.iter().for_each(|change| arguments.extend(["--set", change]));
    workspace.run(&arguments).exits(0).says(says);
    result(workspace, name)
}

fn result(workspace: &Workspace, name: &str) -> (Vec<Value>, Vec<u8>) {
    let text = std::fs::read_to_string(workspace.path(name).join("metrics.jsonl")).unwrap();
    let decided_by_data = |line: &str| {
        let line: serde_json::Map<String, Value> = serde_json::from_str(line).unwrap();
        let keys: &[&str] = match line["event"].as_str() {
            Some("step") => {
                &["step", "epoch", "loss", "learning_rate", "grad_norm", "tokens", "supervised_tokens"]
            }
            Some("evaluation") => &["step", "epoch", "eval_loss", "supervised_tokens", "best"],
            _ => return None,
        };
        Some(keys.iter().map(|&key| line[key].clone()).collect())
    };
    let adapter = std::fs::read(workspace.path(name).join("adapter/adapter_model.safetensors")).unwrap();
    (text.lines().filter_map(decided_by_data).collect(), adapter)
}

const OFF: &str = "train.frozen_prefix_cache=off";
const ON: &str = "the lowest 2 layers run once for each row";

#[test]
fn whole_runs_agree_with_and_without_padding_and_packing() {
    let workspace = Workspace::new();
    let cases: [&[&str]; 3] = [&[], &["data.packing=true", "data.shuffle=false"], &["data.packing=true"]];
    for (index, case) in cases.iter().enumerate() {
        let expected = run(&workspace, &format!("off-{index}"), &[case, &[OFF][..]].concat(), &[]);
        let size = "train.frozen_prefix_cache=8MiB";
        let found = run(&workspace, &format!("on-{index}"), &[case, &[size][..]].concat(), &[ON, "8 MiB"]);
        assert!(found == expected, "{case:?}");
    }
}

#[test]
fn a_run_says_why_it_does_without() {
    let workspace = Workspace::new();
    let size = "train.frozen_prefix_cache=8MiB";
    run(&workspace, "default", &[], &[ON, "in memory", "1024 MiB"]);
    run(&workspace, "packed", &["data.packing=true"], &["cache is off: data.packing with data.shuffle"]);
    run(&workspace, "once", &[size, "train.epochs=1"], &["cache is off: the run meets no row twice"]);
    run(
        &workspace,
        "low",
        &[size, "adapter.layers_to_transform=[0, 2]"],
        &["cache is off: no layer lies below"],
    );
    run(&workspace, "budget", &["model.memory_budget=4MiB"], &[ON, "in memory (at most 3 MiB"]);
}

#[test]
fn rows_on_disk_serve_later_runs_and_damaged_ones_are_computed_again() {
    let workspace = Workspace::new();
    let folder = format!("train.frozen_prefix_cache_dir={:?}", workspace.path("cache"));
    let expected = run(&workspace, "off", &[OFF], &[]);
    assert!(run(&workspace, "first", &[&folder], &[ON, "cache"]) == expected);
    let files = || -> Vec<_> {
        let entries = std::fs::read_dir(workspace.path("cache")).unwrap();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    };
    let before = files();
    assert_eq!(before.len(), 27, "a file for each row");
    let contents: Vec<Vec<u8>> = before.iter().map(|file| std::fs::read(file).unwrap()).collect();
    // One bit wrong, cut short, empty, gone.
    let mut wrong = contents[0].clone();
    wrong[40] ^= 1;
    std::fs::write(&before[0], wrong).unwrap();
    std::fs::write(&before[1], &contents[1][..100]).unwrap();
    std::fs::write(&before[2], []).unwrap();
    std::fs::remove_file(&before[3]).unwrap();
    assert!(run(&workspace, "second", &[&folder], &[ON]) == expected);
    assert_eq!(files(), before);
    assert!(before.iter().zip(&contents).all(|(file, content)| std::fs::read(file).unwrap() == *content));

    // Other layers make other rows, and nobody takes these for their own.
    let other = ["adapter.layers_to_transform=[1, 2]", &folder];
    let found = run(&workspace, "other", &other, &["the lowest 1 layers"]);
    assert_eq!(files().len(), 54);
    assert!(found == run(&workspace, "other-off", &[other[0], OFF], &[]));
}

#[test]
fn a_resumed_run_ends_with_the_same_bits() {
    let workspace = Workspace::new();
    let folder = format!("train.frozen_prefix_cache_dir={:?}", workspace.path("cache"));
    for (name, changes) in [("memory", vec![]), ("disk", vec![folder.as_str()])] {
        let expected = run(&workspace, name, &changes, &[ON]);
        let run_dir = workspace.path(name);
        let last = lazytune::checkpoint::latest(&run_dir).unwrap().expect("a checkpoint");
        std::fs::remove_dir_all(last).unwrap();
        std::fs::remove_dir_all(run_dir.join("adapter")).unwrap();
        let mut arguments = vec!["train", "run.toml", "--run-dir", name, "--resume"];
        changes.iter().for_each(|change| arguments.extend(["--set", change]));
        workspace.run(&arguments).exits(0).says(&["resuming after step", ON]);
        assert!(result(&workspace, name) == expected, "{name}");
    }
}
