//! Shared by the benches: counts of allocations, and training steps of a given model.
#![allow(dead_code)]

use std::collections::BTreeMap;

use lazytune::Result;
use lazytune::adapter::{AdaptedLinear, AdapterSpec, TargetModules};
use lazytune::graph::DType;
pub use lazytune::kernels::allocations::{Allocations, CountingAllocator};
use lazytune::model::{ModelConfig, Trained, families};
use lazytune::optim::AdamW;
use lazytune::train::StepBuilder;

/// Runs `work` and counts the allocations of all threads meanwhile.
pub fn allocations<T>(work: impl FnOnce() -> T) -> (T, Allocations) {
    let before = Allocations::so_far();
    let value = work();
    (value, Allocations::so_far().since(before))
}

/// LoRA of rank 8 on every linear layer but the head.
///
/// # Errors
/// A user error if the model has no linear layers.
pub fn adapters(config: &ModelConfig) -> Result<BTreeMap<String, AdaptedLinear>> {
    let spec = AdapterSpec {
        r: 8,
        alpha: 16.0,
        dropout: 0.0,
        use_rslora: false,
        use_dora: false,
        target_modules: TargetModules::AllLinear,
        layers_to_transform: None,
        rank_pattern: BTreeMap::new(),
        alpha_pattern: BTreeMap::new(),
        modules_to_save: Vec::new(),
        trainable_token_indices: BTreeMap::new(),
    };
    let layers = spec.resolve(&config.linear_modules())?;
    Ok(layers.into_iter().map(|layer| (layer.path.clone(), layer)).collect())
}

/// The steps of a LoRA run on a model.
pub fn step_builder(
    config: &ModelConfig,
    adapters: BTreeMap<String, AdaptedLinear>,
    max_positions: usize,
) -> StepBuilder {
    StepBuilder {
        decoder: families::decoder(config),
        trained: Trained::Adapters(adapters.into_iter().collect()),
        dtype: DType::F32,
        optimizer: AdamW { betas: (0.9, 0.999), epsilon: 1e-8, weight_decay: 0.0, max_grad_norm: 1.0 },
        max_positions,
        memory_budget: None,
    }
}
