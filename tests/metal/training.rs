//! A device that replays programs with the kernels as C++: it trains as the CPU does.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use lazytune::adapter::{AdapterSpec, TargetModules};
use lazytune::data::{Batch, Window};
use lazytune::executor::metal::ProgramDevice;
use lazytune::executor::{AsyncGraphExecutor, CpuDevice, CpuOptions, Device, HostTensor};
use lazytune::graph::{DType, IGNORE_TARGET, TensorType};
use lazytune::kernels::metal::Element;
use lazytune::model::{ModelSource, Trained, families, lora_a_name, lora_b_name};
use lazytune::optim::{AdamW, Schedule, ScheduleShape};
use lazytune::train::{NamedTensors, StepBuilder, Trainer};

use crate::checks::noise;
use crate::compiler::can_compile;
use crate::gpu::Gpu;
use crate::replay::LateQueue;

const BASE: &str = "tests/goldens/untied_odd/base";
const SCHEDULE: Schedule =
    Schedule { shape: ScheduleShape::Constant, peak: 1e-2, minimum: 0.0, warmup_steps: 0, total_steps: 3 };

/// Adapters of all linear layers.
pub fn spec(rank: usize) -> AdapterSpec {
    AdapterSpec {
        r: rank,
        alpha: 5.0,
        dropout: 0.0,
        use_rslora: false,
        use_dora: false,
        target_modules: TargetModules::AllLinear,
        layers_to_transform: None,
        rank_pattern: BTreeMap::new(),
        alpha_pattern: BTreeMap::new(),
        modules_to_save: Vec::new(),
        trainable_token_indices: BTreeMap::new(),
    }
}

fn builder(source: &ModelSource) -> (StepBuilder, NamedTensors) {
    let spec = spec(3);
    let layers = spec.resolve(&source.config.linear_modules()).unwrap();
    let mut values = NamedTensors::new();
    for (seed, layer) in layers.iter().enumerate() {
        let tensor = |dims: [usize; 2], seed: usize| {
            let uniform = noise(dims[0] * dims[1], seed as u64);
            HostTensor::f32(&dims, uniform.into_iter().map(|value| 0.2 * value).collect()).unwrap()
        };
        values.insert(lora_a_name(&layer.path), tensor([layer.rank, layer.in_features], 2 * seed));
        values.insert(lora_b_name(&layer.path), tensor([layer.out_features, layer.rank], 2 * seed + 1));
    }
    let builder = StepBuilder {
        decoder: families::decoder(&source.config),
        trained: Trained::Adapters(layers.into_iter().map(|layer| (layer.path.clone(), layer)).collect()),
        dtype: DType::F32,
        optimizer: AdamW { betas: (0.9, 0.999), epsilon: 1e-8, weight_decay: 0.01, max_grad_norm: 1.0 },
        max_positions: 16,
        memory_budget: None,
    };
    (builder, values)
}

/// Micro-batches of two rows of eight tokens below `words`; the last ones of the second row are padding.
pub fn window(micro_batches: usize, words: u32) -> Window {
    let tokens = 16;
    let batch = Batch {
        rows: 2,
        sequence: 8,
        input_ids: (0..tokens).map(|i| i * 7 % words).collect(),
        positions: (0..tokens).map(|i| i % 8).collect(),
        segments: (0..tokens).map(|i| if i < 13 { 0 } else { u32::MAX }).collect(),
        targets: (0..tokens)
            .map(|i| if i % 3 == 0 || i >= 12 { IGNORE_TARGET } else { i * 5 % words })
            .collect(),
        supervised_tokens: 8,
        tokens: 13,
        sources: vec![],
    };
    let state_after = serde_json::from_value(serde_json::json!({
        "epoch": 0, "window": 1, "seed": 0, "sequences_per_window": 2, "shuffle": false, "packing": false,
        "max_length": 16, "dataset": "0",
    }));
    Window {
        supervised_tokens: 8 * micro_batches,
        tokens: 13 * micro_batches,
        batches: vec![batch; micro_batches],
        state_after: state_after.unwrap(),
        epoch: 0.0,
        notices: Vec::new(),
    }
}

/// Losses and gradient norms of three steps.
async fn losses(device: Box<dyn Device>) -> Vec<f64> {
    let source = Arc::new(ModelSource::open_folder(Path::new(BASE)).unwrap());
    let (builder, values) = builder(&source);
    let executor = AsyncGraphExecutor::new(device).unwrap();
    let weights = source.clone();
    let loader = move |name: &str, tensor: TensorType| {
        let dims = tensor.shape.dims();
        HostTensor::f32(dims, weights.weights.read_f32(name, dims)?)
    };
    executor.set_weights(Arc::new(loader)).await.unwrap();
    let mut trainer = Trainer::new(executor, builder, SCHEDULE, 7, values).await.unwrap();
    let mut losses = Vec::new();
    for _ in 0..3 {
        let report = trainer.step(&window(1, 59), 0.0).await.unwrap();
        losses.extend([report.loss, report.grad_norm]);
    }
    losses
}

#[test]
fn a_device_of_metal_kernels_trains_as_the_cpu_does() {
    if !can_compile() {
        return;
    }
    let gpu = Gpu { orders: &[7], ..Gpu::new(Element::F32, 64) };
    // Short command buffers, so that a step takes several.
    let device = ProgramDevice::new(LateQueue::new(gpu), 1e-6);
    let options = CpuOptions { threads: 2, ..CpuOptions::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let expected = runtime.block_on(losses(Box::new(CpuDevice::new(options).unwrap())));
    let found = runtime.block_on(losses(Box::new(device)));
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() < 2e-4 * expected.abs(), "{found} instead of {expected}");
    }
    assert_eq!(found.len(), expected.len());
}
