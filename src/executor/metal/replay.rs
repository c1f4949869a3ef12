//! Steps on a device that replays programs.

use std::ops::Range;
use std::sync::Arc;

use super::device::ProgramDevice;
use super::program::{Buffer, Command, Recorded, Region};
use super::queue::{Bound, CommandQueue};
use super::steps::{Kept, MOST_IN_FLIGHT};
use super::target::MetalTarget;
use crate::error::{Error, Result};
use crate::executor::device::{Device, DeviceCounters, WeightLoader};
use crate::executor::host_tensor::HostTensor;
use crate::graph::TensorType;
use crate::plan::{Plan, Target};

impl<Q: CommandQueue> ProgramDevice<Q> {
    /// Encodes commands of the bound plan, in order. The first ones of a step open it: what the host has written for it goes
    /// into shared memory that no step in flight reads.
    fn encode(&mut self, commands: &[Recorded]) -> Result<()> {
        let bound = self.bound.get(self.current).ok_or_else(|| Error::internal("no plan is bound"))?;
        self.steps.open(&mut self.queue, &bound.program)?;
        let (inputs, outputs) = self.steps.buffers();
        let (tables, outputs) = (bound.tables.as_ref(), &outputs[..]);
        let memory = Bound { leaves: &self.leaf_buffers, own: &self.own, tables, inputs, outputs };
        self.queue.encode(commands, &bound.plan, &memory)
    }

    /// Encodes the commands of some batches.
    fn encode_batches(&mut self, batches: Range<usize>) -> Result<()> {
        let program = self.current()?.program.clone();
        let ranges = &program.batches[batches];
        let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else { return Ok(()) };
        self.encode(&program.commands[first.start..last.end])
    }

    /// Where a value of the bound plan lies, and its type.
    fn value(&self, index: usize) -> Result<(Region, TensorType)> {
        let bound = self.current()?;
        let region = bound.program.regions.get(index).copied().flatten();
        let region = region.ok_or_else(|| Error::internal(format!("node %{index} has no memory")))?;
        Ok((region, bound.plan.graph.nodes()[index].tensor_type()))
    }

    /// Waits. Inputs and outputs are not read so: their memory is that of a step.
    fn download(&mut self, region: Region, tensor: TensorType) -> Result<HostTensor> {
        let bound = self.bound.get(self.current);
        let tables = bound.and_then(|bound| bound.tables.as_ref());
        let (inputs, outputs) = (None, &[][..]);
        let memory = Bound { leaves: &self.leaf_buffers, own: &self.own, tables, inputs, outputs };
        let bytes = self.queue.download(memory.get(region.buffer)?, region.offset, tensor.bytes())?;
        Ok(HostTensor::from_bytes(tensor, &bytes))
    }
}

impl<Q: CommandQueue> Device for ProgramDevice<Q> {
    fn name(&self) -> String {
        self.queue.name()
    }

    fn target(&self) -> Arc<dyn Target + Send + Sync> {
        Arc::new(MetalTarget)
    }

    fn set_weights(&mut self, loader: Arc<WeightLoader>) {
        self.weights = Some(loader);
    }

    /// A state has no place until the first plan with it is bound: updates want theirs side by side.
    fn set_state(&mut self, name: &str, value: &HostTensor) -> Result<()> {
        let known = self.states.insert(name.to_owned(), value.tensor);
        let placed = self.leaves.named(name);
        if let (Some(region), true) = (placed, known == Some(value.tensor)) {
            return self.upload(region, value.bytes());
        }
        if placed.is_some() {
            // Programs have the old place in their commands.
            self.queue.synchronize()?;
            self.bound.clear();
            if let Some(buffer) = self.leaves.forget(name) {
                let nothing = self.queue.allocate(1, "nothing")?;
                let old = std::mem::replace(&mut self.leaf_buffers[buffer], nothing);
                self.queue.release(vec![old]);
            }
        }
        self.waiting.insert(name.to_owned(), value.clone());
        Ok(())
    }

    fn state(&mut self, name: &str) -> Result<HostTensor> {
        if let Some(value) = self.waiting.get(name) {
            return Ok(value.clone());
        }
        let missing = || Error::internal(format!("the state {name} was never set"));
        let tensor = *self.states.get(name).ok_or_else(missing)?;
        let region = self.leaves.named(name).ok_or_else(missing)?;
        self.download(region, tensor)
    }

    fn bind(&mut self, plan: &Arc<Plan>) -> Result<()> {
        // A step that failed half-way leaves its slot open.
        self.steps.close();
        match self.bound.iter().position(|bound| Arc::ptr_eq(&bound.plan, plan)) {
            Some(position) => self.current = position,
            None => self.bind_new(plan)?,
        }
        Ok(())
    }

    fn write_input(&mut self, index: usize, value: &HostTensor) -> Result<()> {
        let (region, _) = self.value(index)?;
        self.steps.write(region, value);
        Ok(())
    }

    /// Encodes when the last batch of a command buffer is asked for.
    fn run_batch(&mut self, batch: usize) -> Result<()> {
        let bound = self.current()?;
        let last = batch + 1 == bound.ends.len();
        if let Some(batches) = bound.ends[batch].clone() {
            self.encode_batches(batches)?;
        }
        if last {
            self.steps.close();
        }
        Ok(())
    }

    /// What works for several operations runs with the last of them.
    fn run_operation(&mut self, batch: usize, position: usize) -> Result<()> {
        let bound = self.current()?;
        let index = bound.plan.batches[batch][position];
        let last = batch + 1 == bound.ends.len() && position + 1 == bound.plan.batches[batch].len();
        let program = bound.program.clone();
        let commands = &program.commands[program.batches[batch].clone()];
        let barrier = Recorded { command: Command::Barrier, operation: index, touches: vec![] };
        let mut own = Vec::new();
        for recorded in commands.iter().filter(|recorded| recorded.operation == index) {
            own.extend([barrier.clone(), recorded.clone()]);
        }
        self.encode(&own)?;
        if last {
            self.steps.close();
        }
        Ok(())
    }

    fn synchronize(&mut self) -> Result<()> {
        self.queue.synchronize()?;
        self.steps.done();
        Ok(())
    }

    fn read(&mut self, index: usize) -> Result<HostTensor> {
        let (region, tensor) = self.value(index)?;
        match region.buffer {
            Buffer::Output(_) => {
                self.queue.synchronize()?;
                self.steps.read(&mut self.queue, region, tensor)
            }
            _ => self.download(region, tensor),
        }
    }

    fn keeps(&self) -> usize {
        MOST_IN_FLIGHT
    }

    fn keep(&mut self, indices: &[usize]) -> Result<()> {
        let mut kept = Vec::with_capacity(indices.len());
        for &index in indices {
            let (region, tensor) = self.value(index)?;
            kept.push(match region.buffer {
                Buffer::Output(_) => self.steps.output(region, tensor),
                // Later steps overwrite it.
                _ => Kept::Host(self.download(region, tensor)?),
            });
        }
        self.steps.keep(kept);
        Ok(())
    }

    fn collect(&mut self) -> Result<Vec<Vec<HostTensor>>> {
        self.steps.collect(&mut self.queue)
    }

    fn counters(&self) -> DeviceCounters {
        DeviceCounters {
            resident_bytes: self.leaves.buffers.iter().sum(),
            arena_bytes: self.own.iter().map(|(bytes, _)| bytes).sum(),
            ..self.counters
        }
    }
}
