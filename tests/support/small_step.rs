//! The parts of a step on one of the golden models, in f32: what it trains, from which values, and on which rows.

use std::path::Path;
use std::sync::Arc;

use lazytune::adapter::AdapterSpec;
use lazytune::data::{Batch, RowSource, Window};
use lazytune::executor::{AsyncGraphExecutor, Device, HostTensor};
use lazytune::graph::{DType, IGNORE_TARGET, Shape, TensorType};
use lazytune::model::{ModelSource, Trained, families};
use lazytune::optim::{AdamW, Schedule, ScheduleShape};
use lazytune::train::{NamedTensors, StepBuilder};

use super::Random;
use super::steps::spec;

/// Ids that all golden models know.
const VOCABULARY: u32 = 53;
const ROWS: usize = 2;
const SEQUENCE: usize = 8;
/// The last ones of the second row are padding.
const TOKENS: usize = 13;

pub fn constant_rate(total_steps: usize) -> Schedule {
    Schedule { shape: ScheduleShape::Constant, peak: 1e-2, minimum: 0.0, warmup_steps: 0, total_steps }
}

/// Adapters on every linear layer, none of whose values is zero, and one micro-batch of two rows.
pub fn small_step(source: &ModelSource, dropout: f64) -> (StepBuilder, NamedTensors, Window) {
    let spec = AdapterSpec { r: 3, alpha: 5.0, dropout, ..spec() };
    let layers = spec.resolve(&source.config.linear_modules()).unwrap();
    let mut random = Random::new(11);
    let mut values = NamedTensors::new();
    for layer in &layers {
        let mut tensor = |dims: &[usize]| {
            let uniform = random.tensor(TensorType::new(Shape::new(dims).unwrap(), DType::F32));
            HostTensor::f32(dims, uniform.into_f32().into_iter().map(|value| 0.2 * value).collect()).unwrap()
        };
        values.insert(layer.a_name(), tensor(&layer.a_dims()));
        values.insert(layer.b_name(), tensor(&layer.b_dims()));
    }
    let builder = StepBuilder {
        decoder: families::decoder(&source.config),
        trained: Trained::Adapters(layers.into_iter().map(|layer| (layer.path.clone(), layer)).collect()),
        dtype: DType::F32,
        optimizer: AdamW { betas: (0.9, 0.999), epsilon: 1e-8, weight_decay: 0.01, max_grad_norm: 1.0 },
        max_positions: 16,
        memory_budget: None,
    };
    (builder, values, window(&[7]))
}

/// A window with one micro-batch for each of `strides`, which decide its tokens.
pub fn window(strides: &[u32]) -> Window {
    let state_after = serde_json::from_value(serde_json::json!({
        "epoch": 0, "window": 1, "seed": 0, "sequences_per_window": 2, "shuffle": false, "packing": false,
        "max_length": 16, "dataset": "0",
    }));
    let batches: Vec<Batch> = strides.iter().map(|&stride| batch(stride)).collect();
    Window {
        supervised_tokens: batches.iter().map(|batch| batch.supervised_tokens).sum(),
        tokens: batches.iter().map(|batch| batch.tokens).sum(),
        batches,
        state_after: state_after.unwrap(),
        epoch: 0.0,
        notices: Vec::new(),
    }
}

fn batch(stride: u32) -> Batch {
    let positions = 0..(ROWS * SEQUENCE) as u32;
    let supervised = |i: u32| !i.is_multiple_of(3) && i + 1 < TOKENS as u32;
    let target = |i| if supervised(i) { i * 5 % VOCABULARY } else { IGNORE_TARGET };
    Batch {
        rows: ROWS,
        sequence: SEQUENCE,
        input_ids: positions.clone().map(|i| i * stride % VOCABULARY).collect(),
        positions: positions.clone().map(|i| i % SEQUENCE as u32).collect(),
        segments: positions.clone().map(|i| if i < TOKENS as u32 { 0 } else { u32::MAX }).collect(),
        targets: positions.clone().map(target).collect(),
        supervised_tokens: positions.filter(|&i| supervised(i)).count(),
        tokens: TOKENS,
        sources: vec![RowSource { file: Arc::from(Path::new("rows.jsonl")), row: stride as usize }],
    }
}

/// An executor on `device` that knows the model's weights.
pub async fn open(device: Box<dyn Device>, source: &Arc<ModelSource>) -> AsyncGraphExecutor {
    let executor = AsyncGraphExecutor::new(device).unwrap();
    let weights = source.clone();
    let loader = move |name: &str, tensor: TensorType| {
        let dims = tensor.shape.dims();
        HostTensor::f32(dims, weights.weights.read_f32(name, dims)?)
    };
    executor.set_weights(Arc::new(loader)).await.unwrap();
    executor
}
