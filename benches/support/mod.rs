//! Shared by the benches: a counting allocator, and training steps of a given model.
#![allow(dead_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use lazytune::Result;
use lazytune::adapter::{AdaptedLinear, AdapterSpec, TargetModules};
use lazytune::graph::DType;
use lazytune::model::{ModelConfig, Trained, families};
use lazytune::optim::AdamW;
use lazytune::train::StepBuilder;

/// The system's allocator, with a count of what is asked of it by any thread.
pub struct CountingAllocator;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static ALLOCATED_BYTES: AtomicU64 = AtomicU64::new(0);

fn count(bytes: usize) {
    ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    ALLOCATED_BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
}

// SAFETY: every call goes to `System` unchanged.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Allocations of all threads so far.
pub fn allocated() -> u64 {
    ALLOCATIONS.load(Ordering::Relaxed)
}

/// What a piece of work asked of the allocator.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allocations {
    pub count: u64,
    pub bytes: u64,
}

/// Runs `work` and counts the allocations of all threads meanwhile.
pub fn allocations<T>(work: impl FnOnce() -> T) -> (T, Allocations) {
    let now = || (allocated(), ALLOCATED_BYTES.load(Ordering::Relaxed));
    let before = now();
    let value = work();
    let after = now();
    (value, Allocations { count: after.0 - before.0, bytes: after.1 - before.1 })
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
        target_modules: TargetModules::AllLinear,
        layers_to_transform: None,
        rank_pattern: BTreeMap::new(),
        alpha_pattern: BTreeMap::new(),
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
        trained: Trained::Adapters(adapters),
        dtype: DType::F32,
        optimizer: AdamW { betas: (0.9, 0.999), epsilon: 1e-8, weight_decay: 0.0, max_grad_norm: 1.0 },
        max_positions,
        memory_budget: None,
    }
}
