//! What the run loop needs of a device.

use std::sync::Arc;

use super::host_tensor::HostTensor;
use crate::error::Result;
use crate::graph::TensorType;
use crate::plan::{Plan, Target};

/// Gives a frozen weight by name.
pub type WeightLoader = dyn Fn(&str, TensorType) -> Result<HostTensor> + Send + Sync;

/// Memory, kernels and states of one device. Calls come from one thread, in the order of the run loop.
pub trait Device: Send {
    fn name(&self) -> String;

    /// What the planner has to know.
    fn target(&self) -> Arc<dyn Target + Send + Sync>;

    /// Where frozen weights come from; read when a plan first needs them.
    fn set_weights(&mut self, loader: Arc<WeightLoader>);

    /// Creates or replaces a state.
    fn set_state(&mut self, name: &str, value: &HostTensor) -> Result<()>;

    /// A copy of a state.
    fn state(&mut self, name: &str) -> Result<HostTensor>;

    /// Makes `plan` the one that the calls below mean: memory, kernels, cached values.
    fn bind(&mut self, plan: &Arc<Plan>) -> Result<()>;

    /// Sets an input; `index` is its node.
    fn write_input(&mut self, index: usize, value: &HostTensor) -> Result<()>;

    /// Runs the operations of one batch side by side.
    fn run_batch(&mut self, batch: usize) -> Result<()>;

    /// Runs one operation of a batch alone.
    fn run_operation(&mut self, batch: usize, position: usize) -> Result<()>;

    /// Waits until everything that was dispatched is done.
    fn synchronize(&mut self) -> Result<()>;

    /// A value that the plan keeps readable.
    fn read(&mut self, index: usize) -> Result<HostTensor>;

    fn counters(&self) -> DeviceCounters;
}

/// Counts since the device was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceCounters {
    pub tensor_cache_hits: u64,
    pub tensor_cache_misses: u64,
    /// Bytes of weights, states and cached values.
    pub resident_bytes: usize,
    /// Bytes of the arena for intermediates.
    pub arena_bytes: usize,
}
