//! What replaying a program needs of a device.

use super::program::{Buffer, Recorded};
use crate::error::{Error, Result};
use crate::plan::Plan;

/// Memory of a device and the order of what runs there. What is encoded runs in its order, some time until the next
/// [`CommandQueue::synchronize`].
pub trait CommandQueue: Send {
    /// A handle to memory.
    type Buffer: Clone + Send;

    fn name(&self) -> String;

    /// Memory that only the device sees; what is in it at first does not matter.
    ///
    /// # Errors
    /// A memory error if there is no room.
    fn allocate(&mut self, bytes: usize, label: &str) -> Result<Self::Buffer>;

    /// Memory that the host sees, too.
    ///
    /// # Errors
    /// A memory error if there is no room.
    fn allocate_shared(&mut self, bytes: usize, label: &str) -> Result<Self::Buffer>;

    /// Gives memory back; nothing that was encoded uses it any more.
    fn release(&mut self, buffers: Vec<Self::Buffer>);

    /// Writes shared memory at once.
    ///
    /// # Errors
    /// An internal error if the bytes do not fit.
    fn write_shared(&mut self, to: &Self::Buffer, bytes: &[u8]) -> Result<()>;

    /// The first bytes of shared memory as they are now.
    ///
    /// # Errors
    /// An internal error if there are not as many.
    fn read_shared(&mut self, from: &Self::Buffer, bytes: usize) -> Result<Vec<u8>>;

    /// Writes memory of the device after all that was encoded before.
    ///
    /// # Errors
    /// A device error if nothing more can be encoded.
    fn upload(&mut self, to: &Self::Buffer, offset: usize, bytes: &[u8]) -> Result<()>;

    /// Waits for all that was encoded, and copies bytes.
    ///
    /// # Errors
    /// A device error if something that was encoded failed.
    fn download(&mut self, from: &Self::Buffer, offset: usize, bytes: usize) -> Result<Vec<u8>>;

    /// Encodes commands of a plan.
    ///
    /// # Errors
    /// A device error if a kernel cannot be compiled.
    fn encode(&mut self, commands: &[Recorded], plan: &Plan, memory: &Bound<'_, Self::Buffer>) -> Result<()>;

    /// Waits for all that was encoded.
    ///
    /// # Errors
    /// A device error if something that was encoded failed.
    fn synchronize(&mut self) -> Result<()>;
}

/// The buffers that a program's names mean in this step.
pub struct Bound<'a, B> {
    pub(super) leaves: &'a [B],
    pub(super) own: &'a [(usize, B)],
    pub(super) tables: Option<&'a B>,
    pub(super) inputs: Option<&'a B>,
    pub(super) outputs: &'a [B],
}

impl<B> Bound<'_, B> {
    /// # Errors
    /// An internal error if a program names what it did not ask for.
    pub fn get(&self, buffer: Buffer) -> Result<&B> {
        let found = match buffer {
            Buffer::Leaf(index) => self.leaves.get(index),
            Buffer::Own(index) => self.own.get(index).map(|(_, buffer)| buffer),
            Buffer::Output(index) => self.outputs.get(index),
            Buffer::Tables => self.tables,
            Buffer::Inputs => self.inputs,
        };
        found.ok_or_else(|| Error::internal(format!("{buffer:?} was not allocated")))
    }
}
