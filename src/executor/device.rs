//! What the run loop needs of a device.

use std::sync::Arc;

use super::host_tensor::HostTensor;
use crate::error::{Error, Result};
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

    /// Sets an input; `index` is its node. Where runs are deferred, those before may still be reading the value that this one
    /// takes the place of.
    fn write_input(&mut self, index: usize, value: &HostTensor) -> Result<()>;

    /// Runs the operations of one batch side by side.
    fn run_batch(&mut self, batch: usize) -> Result<()>;

    /// Runs one operation of a batch alone.
    fn run_operation(&mut self, batch: usize, position: usize) -> Result<()>;

    /// Waits until everything that was dispatched is done.
    fn synchronize(&mut self) -> Result<()>;

    /// A value that the plan keeps readable.
    fn read(&mut self, index: usize) -> Result<HostTensor>;

    /// Runs whose results the device can keep in its own memory, so that the host need not wait for each; 0 where it costs
    /// nothing to read them at once.
    fn keeps(&self) -> usize {
        0
    }

    /// Copies values of the run that was dispatched last to where later runs leave them alone, without waiting for it.
    /// Never called more than [`Self::keeps`] times without [`Self::collect`].
    ///
    /// # Errors
    /// A device error if the copies cannot be made.
    fn keep(&mut self, indices: &[usize]) -> Result<()> {
        Err(Error::internal(format!("{} keeps no results, so not those of {indices:?} either", self.name())))
    }

    /// What was kept since it was last called, one list for each run, the oldest first. Called after
    /// [`Self::synchronize`]; nothing was dispatched in between.
    ///
    /// # Errors
    /// A device error if a value cannot be read.
    fn collect(&mut self) -> Result<Vec<Vec<HostTensor>>> {
        Ok(Vec::new())
    }

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
