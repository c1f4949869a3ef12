//! What torch, transformers and peft compute on tiny models (scripts/make_goldens.py), to 1e-4: logits, loss and
//! gradients of the graph, with fused and with plain operations; losses, gradient norms and weights of the real
//! command.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a helper of tests, which may fail and tell"
)]

mod support;

use std::collections::BTreeMap;

use lazytune::adapter::expert_path;
use lazytune::autodiff::gradients;
use lazytune::data::{IGNORE_TARGET, PADDING_SEGMENT};
use lazytune::executor::{CpuOptions, HostTensor, StepInputs};
use lazytune::graph::{ComputationGraph, DType, LazyTensor};
use lazytune::model::{Parameters, Tokens, Trained};
use lazytune::passes::decompose;
use lazytune::train::NamedTensors;
use lazytune::train::model::OpenModel;
use serde_json::Value;
use support::workspace::{Workspace, field, golden, steps, tensors};
use support::{FAMILIES, GGUF, block_on, compute, executor, relative_error, two_threads};

const TOLERANCE: f64 = 1e-4;

/// The batch of a case as [batch, seq] lists.
struct GoldenBatch {
    rows: usize,
    seq: usize,
    /// Whether each position holds a token of its row.
    real: Vec<bool>,
    inputs: StepInputs,
    supervised: usize,
}

fn batch(case: &str) -> GoldenBatch {
    let text = std::fs::read(golden(case).join("batch.json")).unwrap();
    let json: Value = serde_json::from_slice(&text).unwrap();
    let numbers = |key: &str| -> Vec<Vec<i64>> { serde_json::from_value(json[key].clone()).unwrap() };
    let (ids, labels, mask) = (numbers("input_ids"), numbers("labels"), numbers("attention_mask"));
    let (rows, seq) = (ids.len(), ids[0].len());
    let target = |row: usize, at: usize| match labels[row].get(at + 1) {
        Some(&label) if label >= 0 => u32::try_from(label).unwrap(),
        _ => IGNORE_TARGET,
    };
    let each = |value: &dyn Fn(usize, usize) -> u32| -> Vec<u32> {
        (0..rows).flat_map(|row| (0..seq).map(move |at| (row, at))).map(|(row, at)| value(row, at)).collect()
    };
    let targets = each(&target);
    let tensor = |values: Vec<u32>| HostTensor::u32(&[rows * seq], values).unwrap();
    let supervised = targets.iter().filter(|&&target| target != IGNORE_TARGET).count();
    let inputs = StepInputs::from([
        ("input_ids".into(), tensor(each(&|row, at| u32::try_from(ids[row][at]).unwrap()))),
        ("positions".into(), tensor(each(&|_, at| u32::try_from(at).unwrap()))),
        ("segments".into(), tensor(each(&|row, at| if mask[row][at] == 1 { 0 } else { PADDING_SEGMENT }))),
        ("targets".into(), tensor(targets)),
    ]);
    GoldenBatch { rows, seq, real: mask.concat().iter().map(|&m| m == 1).collect(), inputs, supervised }
}

/// The model of a case, what is trained, and the values of that; `base` is a folder or a file.
fn opened(case: &str, base: &str) -> (OpenModel, Trained, NamedTensors) {
    let model = OpenModel::named(golden(case).join(base).to_str().unwrap(), None).unwrap();
    let adapter = golden(case).join("adapter");
    if !adapter.is_dir() {
        let values = model.all_weights().unwrap();
        return (model, Trained::All, values);
    }
    let model = model.with_tokens_of(&adapter).unwrap();
    let (trained, values) = model.adapter(&adapter).unwrap();
    (model, trained, values)
}

/// Logits, the mean loss and every trained value's gradient by name.
fn first_step(case: &str, base: &str, options: CpuOptions) -> (Vec<f64>, f64, BTreeMap<String, Vec<f64>>) {
    let (model, trained, values) = opened(case, base);
    let batch = batch(case);
    let executor = executor(options);
    block_on(executor.set_weights(model.weight_loader())).unwrap();
    block_on(executor.set_states(values.into_iter().collect())).unwrap();

    let graph = ComputationGraph::new();
    let parameters = Parameters::new(&graph, &trained, DType::F32, None);
    let tokens = Tokens::packed(&graph, batch.rows, batch.seq, 64);
    let hidden = model.decoder.hidden_states(&parameters, &tokens);
    let targets = graph.input("targets", &[batch.rows * batch.seq], DType::U32);
    let losses = model.decoder.losses(&parameters, &hidden, &targets);
    let loss = losses.sum_all().affine(1.0 / batch.supervised as f64, 0.0);
    let logits = model.decoder.logits(&parameters, &hidden); // [batch * seq, vocab]
    let names = parameters.trained();

    let lacks_kernel = |operation: &_| executor.target().lacks_kernel(operation);
    let frozen = graph.freeze(&[loss, logits]).unwrap();
    let [loss, logits]: [LazyTensor; 2] =
        decompose(&frozen, &lacks_kernel).unwrap().thaw().try_into().unwrap();
    let graph = loss.graph().clone();
    let handles: Vec<LazyTensor> =
        names.iter().map(|(name, tensor)| graph.state(name, tensor.dims(), tensor.dtype())).collect();
    let roots: Vec<LazyTensor> =
        [logits, loss.clone()].into_iter().chain(gradients(&loss, &handles).unwrap()).collect();
    let outputs = compute(&executor, &roots, &batch.inputs, !options.fused_kernels);
    let gradients =
        names.iter().zip(&outputs[2..]).map(|((name, _), output)| (name.clone(), output.to_f64()));
    (outputs[0].to_f64(), outputs[1].to_f64()[0], gradients.collect())
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

/// The keys of the gradients that are one value here: that of a name, or those of all experts.
fn stored(name: &str, expected: &BTreeMap<String, (Vec<usize>, Vec<f32>)>) -> Vec<String> {
    let key = |name: &str| {
        let keys = ["", "base_model.model."].map(|prefix| format!("grad.{prefix}{name}"));
        keys.into_iter().find(|key| expected.contains_key(key))
    };
    if !name.contains('*') {
        return vec![key(name).unwrap()];
    }
    (0..).map_while(|expert| key(&expert_path(name, expert))).collect()
}

fn check_first_step(case: &str, base: &str, options: CpuOptions) {
    let expected = tensors(&golden(case).join("expected.safetensors"));
    let (logits, loss, gradients) = first_step(case, base, options);

    let mut worst = 0.0_f64;
    let mut check = |what: &str, error: f64| {
        assert!(error < TOLERANCE, "{case} from {base}: {what} is {error:e} away");
        worst = worst.max(error);
    };
    let real = batch(case).real;
    let vocab = logits.len() / real.len();
    let of_tokens = |logits: &[f64]| -> Vec<f64> {
        logits.chunks(vocab).zip(&real).filter(|(_, real)| **real).flat_map(|(row, _)| row.to_vec()).collect()
    };
    check("logits", relative_error(&of_tokens(&logits), &of_tokens(&wide(&expected["logits"].1)), 0.0));
    check("the loss", relative_error(&[loss], &wide(&expected["loss"].1), 0.0));

    let mut compared = 0;
    for (name, found) in &gradients {
        let mut wanted = Vec::new();
        for name in stored(name, &expected) {
            wanted.extend(wide(&expected[&name].1));
            compared += 1;
        }
        check(&format!("the gradient of {name}"), relative_error(found, &wanted, 0.0));
    }
    // Shown by --nocapture.
    println!("{case} from {base}: at most {worst:.1e} away");
    let wanted = expected.keys().filter(|key| key.starts_with("grad.")).count();
    assert_eq!(compared, wanted, "{case}: not every trained weight has a gradient");
}

const ADAPTERS: [&str; 10] = [
    "gqa_tied",
    "untied_odd",
    "mha_patterns",
    "dora",
    "saved_modules",
    "saved_table",
    "embedding",
    "embedding_dora",
    "tokens_tied",
    "tokens_untied",
];

/// Cases with an adapter.
fn adapted() -> impl Iterator<Item = &'static str> {
    ADAPTERS.into_iter().chain(FAMILIES)
}

#[test]
fn logits_loss_and_gradients_of_fused_kernels() {
    adapted().chain(["full"]).for_each(|case| check_first_step(case, "base", two_threads()));
}

#[test]
fn logits_loss_and_gradients_of_plain_operations() {
    let plain = CpuOptions { fused_kernels: false, ..two_threads() };
    adapted().chain(["full"]).for_each(|case| check_first_step(case, "base", plain));
}

#[test]
fn logits_loss_and_gradients_from_gguf() {
    GGUF.iter().for_each(|case| check_first_step(case, "base.gguf", two_threads()));
}

/// Trains with the real command and returns the run's folder.
fn train(workspace: &Workspace, case: &str, count: usize) -> std::path::PathBuf {
    let folder = golden(case);
    let adapter = if folder.join("adapter").is_dir() {
        format!("init = {:?}", folder.join("adapter"))
    } else {
        "method = \"full\"".to_owned()
    };
    let text = format!(
        r#"
        [model]
        path = {base:?}
        threads = 2
        [data]
        train = [{rows:?}]
        validation = "none"
        shuffle = false
        max_length = 32
        [adapter]
        {adapter}
        [optimizer]
        learning_rate = 0.01
        weight_decay = 0.01
        [schedule]
        name = "constant"
        [train]
        batch_size = 8
        max_steps = {count}
        save_steps = 0
        "#,
        base = folder.join("base"),
        rows = folder.join("rows.jsonl"),
    );
    workspace.write(&format!("{case}.toml"), text);
    workspace.run(&["train", &format!("{case}.toml"), "--run-dir", case]).exits(0);
    workspace.path(case)
}

fn check_run(case: &str) {
    let workspace = Workspace::new();
    let expected = tensors(&golden(case).join("expected.safetensors"));
    let count = expected["losses"].1.len();
    let run = train(&workspace, case, count);

    let lines = steps(&run.join("metrics.jsonl"));
    for (name, key) in [("loss", "losses"), ("grad_norm", "grad_norms")] {
        let (found, wanted) = (field(&lines, name), wide(&expected[key].1));
        for (step, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
            let error = (found - wanted).abs() / wanted;
            assert!(error < TOLERANCE, "{case}: {name} of step {} is {found}, expected {wanted}", step + 1);
        }
        assert_eq!(found.len(), wanted.len(), "{case}");
    }
    // A fully trained model is exported in bf16; the checkpoint keeps every bit.
    let saved = if run.join("adapter").exists() {
        tensors(&run.join("adapter/adapter_model.safetensors"))
    } else {
        tensors(&run.join(format!("checkpoint-{count}/optimizer.safetensors")))
    };
    let after: Vec<_> =
        expected.iter().filter_map(|(key, value)| Some((key.strip_prefix("after.")?, value))).collect();
    assert!(!after.is_empty());
    for (name, (shape, values)) in after {
        let (found_shape, found) = &saved[name];
        assert_eq!(found_shape, shape, "{case}: {name}");
        let error = relative_error(&wide(found), &wide(values), 0.0);
        assert!(error < TOLERANCE, "{case}: {name} is {error:e} away after {count} steps");
    }
}

#[test]
fn a_run_gives_the_losses_norms_and_weights_of_peft() {
    adapted().for_each(check_run);
}

#[test]
fn a_full_run_gives_the_losses_norms_and_weights_of_torch() {
    check_run("full");
}
