//! Replays plans: one run loop, devices behind one trait, an asynchronous front.

mod async_executor;
pub mod candle;
mod constants;
mod cpu;
mod device;
mod engine;
mod host_tensor;
pub mod metal;
mod observer;
mod pool;
mod tensor_cache;

pub use async_executor::AsyncGraphExecutor;
pub use candle::accelerator_facts;
pub use cpu::{CpuDevice, CpuOptions, CpuTarget};
pub use device::{Device, DeviceCounters, WeightLoader};
pub use engine::{StepInputs, StepOutcome};
pub use host_tensor::{HostTensor, HostValues};
pub use observer::{Observer, Profile, ProfileRow, Sequential, Unobserved, kind_of};
pub use pool::{Batch, ThreadPool};
pub use tensor_cache::{CacheKey, TensorCache};
