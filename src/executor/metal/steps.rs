//! What the host writes and reads of the steps that are in flight: each has buffers of its own.

use super::program::{Buffer, Program, Region};
use super::queue::CommandQueue;
use crate::error::{Error, Result};
use crate::executor::host_tensor::HostTensor;
use crate::graph::TensorType;

/// Steps that the host may be ahead of the device.
pub(super) const MOST_IN_FLIGHT: usize = 32;

/// Shared memory of one step.
pub(super) struct Slot<B> {
    /// With their bytes.
    inputs: Option<(usize, B)>,
    outputs: Vec<(usize, B)>,
}

/// A value that the caller asked to keep.
pub(super) enum Kept {
    /// In an output of a slot.
    Slot {
        slot: usize,
        region: Region,
        tensor: TensorType,
    },
    Host(HostTensor),
}

/// The steps since the host last waited.
pub(super) struct Steps<B> {
    slots: Vec<Slot<B>>,
    /// Slots that steps in flight or kept values take.
    taken: usize,
    /// The slot of the step that is being encoded.
    open: Option<usize>,
    /// The slot of the step that was encoded last.
    last: usize,
    staged: Vec<u8>,
    kept: Vec<Vec<Kept>>,
}

impl<B> Default for Steps<B> {
    fn default() -> Self {
        Self { slots: Vec::new(), taken: 0, open: None, last: 0, staged: Vec::new(), kept: Vec::new() }
    }
}

fn grow<Q: CommandQueue>(
    queue: &mut Q,
    from: Option<(usize, Q::Buffer)>,
    bytes: usize,
    label: &str,
) -> Result<(usize, Q::Buffer)> {
    if let Some((has, buffer)) = from {
        if has >= bytes {
            return Ok((has, buffer));
        }
        // No step in flight has this slot.
        queue.release(vec![buffer]);
    }
    Ok((bytes, queue.allocate_shared(bytes, label)?))
}

impl<B: Clone> Steps<B> {
    /// Takes an input of the step that comes next.
    pub fn write(&mut self, region: Region, value: &HostTensor) {
        self.staged.resize(self.staged.len().max(region.end()), 0);
        self.staged[region.offset..region.end()].copy_from_slice(value.bytes());
    }

    /// Opens the step, if it is not, in a slot that no other one has.
    pub fn open<Q: CommandQueue<Buffer = B>>(&mut self, queue: &mut Q, program: &Program) -> Result<()> {
        if self.open.is_some() {
            return Ok(());
        }
        if self.taken == MOST_IN_FLIGHT {
            queue.synchronize()?;
            self.fetch(queue)?;
            self.taken = 0;
        }
        let number = self.taken;
        if number == self.slots.len() {
            self.slots.push(Slot { inputs: None, outputs: Vec::new() });
        }
        let slot = &mut self.slots[number];
        if program.input_bytes > 0 {
            let inputs = grow(queue, slot.inputs.take(), program.input_bytes, "inputs")?;
            self.staged.resize(program.input_bytes, 0);
            queue.write_shared(&inputs.1, &self.staged)?;
            slot.inputs = Some(inputs);
        }
        let mut old = std::mem::take(&mut slot.outputs).into_iter();
        for &bytes in &program.outputs {
            slot.outputs.push(grow(queue, old.next(), bytes, "outputs")?);
        }
        slot.outputs.extend(old);
        self.taken += 1;
        self.open = Some(number);
        Ok(())
    }

    /// Inputs and outputs of the open step.
    pub fn buffers(&self) -> (Option<&B>, Vec<B>) {
        let slot = self.open.and_then(|open| self.slots.get(open));
        let inputs = slot.and_then(|slot| slot.inputs.as_ref()).map(|(_, buffer)| buffer);
        let outputs = slot.into_iter().flat_map(|slot| &slot.outputs).map(|(_, buffer)| buffer.clone());
        (inputs, outputs.collect())
    }

    /// All of the step is encoded.
    pub fn close(&mut self) {
        self.last = self.open.take().unwrap_or(self.last);
    }

    /// The device has done all that was encoded.
    pub fn done(&mut self) {
        if self.kept.is_empty() && self.open.is_none() {
            self.taken = 0;
        }
    }

    /// An output of the step that was encoded last; the device has written it.
    pub fn read<Q: CommandQueue<Buffer = B>>(
        &self,
        queue: &mut Q,
        region: Region,
        tensor: TensorType,
    ) -> Result<HostTensor> {
        self.read_slot(queue, self.last, region, tensor)
    }

    fn read_slot<Q: CommandQueue<Buffer = B>>(
        &self,
        queue: &mut Q,
        slot: usize,
        region: Region,
        tensor: TensorType,
    ) -> Result<HostTensor> {
        let missing = || Error::internal("a step has no such output");
        let Buffer::Output(output) = region.buffer else { return Err(missing()) };
        let buffers = self.slots.get(slot).and_then(|slot| slot.outputs.get(output));
        let bytes = queue.read_shared(&buffers.ok_or_else(missing)?.1, region.end())?;
        Ok(HostTensor::from_bytes(tensor, bytes.get(region.offset..).unwrap_or_default()))
    }

    /// An output of the step that was encoded last, to be kept.
    pub fn output(&self, region: Region, tensor: TensorType) -> Kept {
        Kept::Slot { slot: self.last, region, tensor }
    }

    pub fn keep(&mut self, values: Vec<Kept>) {
        self.kept.push(values);
    }

    /// Brings kept values to the host, before their slots are used again.
    fn fetch<Q: CommandQueue<Buffer = B>>(&mut self, queue: &mut Q) -> Result<()> {
        let mut kept = std::mem::take(&mut self.kept);
        for value in kept.iter_mut().flatten() {
            if let Kept::Slot { slot, region, tensor } = *value {
                *value = Kept::Host(self.read_slot(queue, slot, region, tensor)?);
            }
        }
        self.kept = kept;
        Ok(())
    }

    /// What was kept, after a wait.
    pub fn collect<Q: CommandQueue<Buffer = B>>(&mut self, queue: &mut Q) -> Result<Vec<Vec<HostTensor>>> {
        self.fetch(queue)?;
        let kept = std::mem::take(&mut self.kept);
        self.done();
        let host = |value| match value {
            Kept::Host(value) => Some(value),
            Kept::Slot { .. } => None,
        };
        Ok(kept.into_iter().map(|run| run.into_iter().filter_map(host).collect()).collect())
    }
}
