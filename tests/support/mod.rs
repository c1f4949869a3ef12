//! Shared by the integration tests: an executor on the CPU, random tensors, comparisons.
#![allow(dead_code, clippy::unwrap_used)]

pub mod deferring;
#[cfg(unix)]
pub mod peer;
pub mod prepared;
pub mod rows;
pub mod small_step;
pub mod steps;
pub mod workspace;

use lazytune::executor::{AsyncGraphExecutor, CpuDevice, CpuOptions, HostTensor, StepInputs};
use lazytune::graph::{LazyTensor, TensorType};
use lazytune::passes::decompose;
use lazytune::plan::{Plan, compile};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::sync::Arc;

/// Goldens of one model a family.
pub const FAMILIES: [&str; 17] = [
    "llama3_rope",
    "llama_yarn",
    "mistral",
    "qwen2",
    "qwen2_window",
    "qwen3",
    "smollm3",
    "granite",
    "olmo2",
    "phi3",
    "phi3_short",
    "phi3_long",
    "gemma2",
    "gemma3",
    "qwen3_moe",
    "qwen3_moe_mixed",
    "mixtral",
];
/// Of these there is a GGUF file too.
pub const GGUF: [&str; 12] = [
    "qwen2",
    "qwen3",
    "smollm3",
    "granite",
    "olmo2",
    "phi3",
    "phi3_short",
    "phi3_long",
    "gemma2",
    "gemma3",
    "qwen3_moe",
    "mixtral",
];

/// An executor with two threads.
pub fn executor(options: CpuOptions) -> AsyncGraphExecutor {
    AsyncGraphExecutor::new(Box::new(CpuDevice::new(options).unwrap())).unwrap()
}

pub fn two_threads() -> CpuOptions {
    CpuOptions { threads: 2, ..CpuOptions::default() }
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Uniform numbers in -1..1, the same for the same seed.
pub struct Random(ChaCha8Rng);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    pub fn uniform(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.0.next_u64() % bound as u64) as usize
    }

    pub fn tensor(&mut self, tensor: TensorType) -> HostTensor {
        let values = (0..tensor.shape.elements()).map(|_| self.uniform()).collect();
        HostTensor::f64(tensor.shape.dims(), values).unwrap().to_dtype(tensor.dtype)
    }
}

/// Compiles without looking into the cache; plain operations only where `plain`.
pub fn plan(executor: &AsyncGraphExecutor, roots: &[LazyTensor], read_back: usize, plain: bool) -> Arc<Plan> {
    let mut graph = roots[0].graph().freeze(roots).unwrap();
    if plain {
        graph = decompose(&graph, &|_| true).unwrap();
    }
    Arc::new(compile(graph, read_back, executor.target()).unwrap())
}

/// Computes `roots` with the given inputs.
pub fn compute(
    executor: &AsyncGraphExecutor,
    roots: &[LazyTensor],
    inputs: &StepInputs,
    plain: bool,
) -> Vec<HostTensor> {
    let plan = plan(executor, roots, roots.len(), plain);
    plan.graph.verify().unwrap();
    block_on(executor.run(plan, inputs.clone())).unwrap().outputs
}

/// The largest difference, relative to the largest expected magnitude (at least `floor`).
pub fn relative_error(found: &[f64], expected: &[f64], floor: f64) -> f64 {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(floor, |scale, value| scale.max(value.abs()));
    let worst = found.iter().zip(expected).map(|(f, e)| (f - e).abs()).fold(0.0, f64::max);
    let finite = found.iter().all(|value| value.is_finite());
    if finite { worst / scale } else { f64::INFINITY }
}
