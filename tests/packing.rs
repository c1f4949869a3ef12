//! Rows that share a sequence give the loss and the gradients that they give alone, on the real engine.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use lazytune::data::{Batch, Dataset, Example, Loader, LoaderOptions, RowSource};
use lazytune::executor::{HostTensor, StepInputs};
use lazytune::graph::DType;
use lazytune::optim::{AdamW, gradient_name};
use lazytune::train::model::OpenModel;
use lazytune::train::{StepBuilder, StepKind};
use support::rows::section;
use support::workspace::golden;
use support::{Random, block_on, executor, relative_error, two_threads};

/// Every group of batches adds up the same numbers in another order.
const TOLERANCE: f64 = 1e-5;
const MAX_LENGTH: usize = 40;
/// From a row that predicts one token to one that fills a sequence: several are longer than the windows of attention.
const LENGTHS: [usize; 13] = [2, 3, 5, 17, 40, 11, 7, 29, 4, 23, 2, 13, 8];

/// Rows of random tokens, each with other parts supervised.
fn dataset() -> Arc<Dataset> {
    let mut random = Random::new(5);
    let example = |(row, &length): (usize, &usize)| Example {
        input_ids: (0..length).map(|_| random.below(50) as u32 + 3).collect(),
        supervised: (0..length).map(|at| at == 1 || (at + row) % 3 != 0).collect(),
        source: RowSource { file: Arc::from(Path::new("rows.jsonl")), row: row + 1 },
        content_hash: row as u64,
    };
    let examples: Vec<Example> = LENGTHS.iter().enumerate().map(example).collect();
    Arc::new(Dataset::from_examples(examples, &section(lazytune::config::TrainOn::All, MAX_LENGTH)))
}

/// All rows as the loader makes batches of `batch_size` sequences of them.
fn batches(packing: bool, batch_size: usize) -> Vec<Batch> {
    let options = LoaderOptions {
        batch_size,
        gradient_accumulation_steps: LENGTHS.len(),
        shuffle: false,
        packing,
        seed: 1,
        max_length: MAX_LENGTH,
    };
    Loader::new(dataset(), options).unwrap().next_window().unwrap().batches
}

/// The mean loss over all supervised tokens, and the sum of its gradients by the name of what is trained.
fn loss_and_gradients(case: &str, batches: &[Batch]) -> (f64, BTreeMap<String, Vec<f64>>) {
    let model = OpenModel::named(golden(case).join("base").to_str().unwrap(), None).unwrap();
    let (trained, values) = model.adapter(&golden(case).join("adapter")).unwrap();
    let executor = executor(two_threads());
    let names: Vec<String> = values.keys().cloned().collect();
    let sums = values.iter().map(|(name, value)| (gradient_name(name), HostTensor::zeros(value.tensor)));
    block_on(executor.set_weights(model.weight_loader())).unwrap();
    block_on(executor.set_states(sums.chain(values.clone()).collect())).unwrap();
    let optimizer = AdamW { betas: (0.9, 0.999), epsilon: 1e-8, weight_decay: 0.0, max_grad_norm: 1.0 };
    let builder = StepBuilder {
        decoder: model.decoder.clone(),
        trained,
        dtype: DType::F32,
        optimizer,
        max_positions: MAX_LENGTH,
        memory_budget: None,
    };
    let supervised: usize = batches.iter().map(|batch| batch.supervised_tokens).sum();
    let mut loss = 0.0;
    for (index, batch) in batches.iter().enumerate() {
        let kind = if index == 0 { StepKind::First } else { StepKind::Middle };
        let plan = builder.plan(&executor, kind, batch.rows, batch.sequence).unwrap();
        let outcome = block_on(executor.run(plan, inputs(batch, 1.0 / supervised as f64))).unwrap();
        loss += outcome.outputs[0].to_f64()[0];
    }
    let gradients =
        block_on(executor.states(names.iter().map(|name| gradient_name(name)).collect())).unwrap();
    (loss, names.into_iter().zip(gradients.iter().map(HostTensor::to_f64)).collect())
}

fn inputs(batch: &Batch, scale: f64) -> StepInputs {
    let of_tokens =
        |values: &[u32]| HostTensor::u32(&[batch.rows * batch.sequence], values.to_vec()).unwrap();
    StepInputs::from([
        ("input_ids".into(), of_tokens(&batch.input_ids)),
        ("positions".into(), of_tokens(&batch.positions)),
        ("segments".into(), of_tokens(&batch.segments)),
        ("targets".into(), of_tokens(&batch.targets)),
        ("loss_scale".into(), HostTensor::f64(&[1], vec![scale]).unwrap().to_dtype(DType::F32)),
    ])
}

#[test]
fn packed_rows_have_the_loss_and_gradients_of_rows_alone() {
    let alone = batches(false, 1);
    assert_eq!(alone.len(), LENGTHS.len());
    let together = [batches(true, 8), batches(true, 2), batches(false, 16)];
    let [packed, _, _] = &together;
    assert!(packed.len() == 1 && packed[0].rows < LENGTHS.len() && packed[0].sources.len() == LENGTHS.len());
    // Full attention, a window of 4 in all layers, in some, and windows beside full attention with soft caps.
    for case in ["gqa_tied", "mistral", "qwen2_window", "gemma2", "gemma3"] {
        let (expected, wanted) = loss_and_gradients(case, &alone);
        assert!(expected > 0.0 && wanted.values().flatten().any(|&value| value != 0.0));
        for batches in &together {
            let (loss, gradients) = loss_and_gradients(case, batches);
            let error = relative_error(&[loss], &[expected], 0.0);
            assert!(error < TOLERANCE, "{case}: the loss is {error:e} away");
            for (name, gradient) in &gradients {
                let error = relative_error(gradient, &wanted[name], 0.0);
                assert!(error < TOLERANCE, "{case}: the gradient of {name} is {error:e} away");
            }
        }
    }
}

#[test]
fn the_comparison_sees_rows_that_attend_to_their_neighbours() {
    let mut packed = batches(true, 8);
    let (expected, _) = loss_and_gradients("gqa_tied", &packed);
    packed[0].segments.iter_mut().filter(|segment| **segment < 100).for_each(|segment| *segment = 0);
    let (found, _) = loss_and_gradients("gqa_tied", &packed);
    assert!(relative_error(&[found], &[expected], 0.0) > 10.0 * TOLERANCE);
}
