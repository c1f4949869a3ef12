//! Aligned memory that kernels are bound to.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc};
use std::ptr::NonNull;

use crate::error::{Error, Result};
use crate::graph::TensorType;
use crate::kernels::{In, Out};

/// Alignment of small allocations, in bytes.
const ALIGNMENT: usize = 64;
/// Blocks from here on are aligned to it and ask for pages of this size: a matrix kernel walks many rows at once, and
/// with pages of 4 KiB each row costs it an address translation.
const HUGE_PAGE: usize = 2 << 20;

/// A zeroed, fixed block of memory; freed when dropped.
#[derive(Debug)]
pub struct Memory {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the block is plain bytes; the executor orders all access to it.
unsafe impl Send for Memory {}
// SAFETY: shared access goes through operands, whose use the executor orders.
unsafe impl Sync for Memory {}

impl Memory {
    /// # Errors
    /// A memory error if the system has no such block.
    pub fn zeroed(bytes: usize) -> Result<Self> {
        let too_large = || Error::memory(format!("cannot allocate {bytes} bytes"));
        let alignment = if bytes < HUGE_PAGE { ALIGNMENT } else { HUGE_PAGE };
        let layout = Layout::from_size_align(bytes.max(ALIGNMENT), alignment).map_err(|_| too_large())?;
        if alignment == ALIGNMENT {
            // SAFETY: the layout's size is not zero.
            let start = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(too_large)?;
            return Ok(Self { start, layout });
        }
        // SAFETY: as above.
        let start = NonNull::new(unsafe { alloc(layout) }).ok_or_else(too_large)?;
        ask_for_huge_pages(start, layout.size());
        // SAFETY: the block has this size. Writing it makes the system provide its pages now and not in a step.
        unsafe { start.write_bytes(0, layout.size()) };
        Ok(Self { start, layout })
    }

    pub fn bytes(&self) -> usize {
        self.layout.size()
    }

    /// A tensor within the block.
    ///
    /// # Errors
    /// An internal error if it does not lie within the block or is not aligned for its elements.
    pub fn operand(&self, offset: usize, tensor: TensorType) -> Result<Operand> {
        let inside = offset.checked_add(tensor.bytes()).is_some_and(|end| end <= self.bytes());
        if !inside || !offset.is_multiple_of(tensor.dtype.size_in_bytes()) {
            return Err(Error::internal(format!(
                "{tensor} does not fit at {offset} of {} bytes",
                self.bytes()
            )));
        }
        // SAFETY: the offset lies within the block.
        let start = unsafe { self.start.as_ptr().add(offset) };
        Ok(Operand { start, bytes: self.bytes() - offset, tensor })
    }
}

/// A hint: where the system does not take it, the block works with small pages.
fn ask_for_huge_pages(start: NonNull<u8>, bytes: usize) {
    #[cfg(target_os = "linux")]
    // SAFETY: the range is one allocation, aligned to pages; the advice does not change its contents.
    let _ =
        unsafe { nix::sys::mman::madvise(start.cast(), bytes, nix::sys::mman::MmapAdvise::MADV_HUGEPAGE) };
    #[cfg(not(target_os = "linux"))]
    let _ = (start, bytes);
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout and freed once.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

/// The address and type of one tensor that an operation reads or writes.
///
/// It borrows nothing: whoever makes it keeps the memory alive while kernels bound to it run.
#[derive(Debug, Clone, Copy)]
pub struct Operand {
    start: *mut u8,
    /// From `start` to the end of the block: packed layouts use more than the tensor's own bytes.
    bytes: usize,
    pub tensor: TensorType,
}

// SAFETY: an operand is an address; the kernels that use it are ordered by the executor.
unsafe impl Send for Operand {}
// SAFETY: as above.
unsafe impl Sync for Operand {}

impl Operand {
    /// A tensor `offset` bytes into this one's block.
    ///
    /// # Errors
    /// An internal error if it does not lie within the block.
    pub fn part(&self, offset: usize, tensor: TensorType) -> Result<Self> {
        if offset.checked_add(tensor.bytes()).is_none_or(|end| end > self.bytes) {
            return Err(Error::internal(format!(
                "{tensor} does not fit at {offset} of {} bytes",
                self.bytes
            )));
        }
        // SAFETY: the offset lies within the block.
        let start = unsafe { self.start.add(offset) };
        Ok(Self { start, bytes: self.bytes - offset, tensor })
    }

    /// The tensor's elements for reading.
    pub fn input<T: bytemuck::Pod>(&self) -> In<T> {
        self.input_of_len(self.tensor.bytes() / size_of::<T>())
    }

    /// `len` elements for reading, when the layout is not that of the tensor; fewer if the block ends before.
    pub fn input_of_len<T: bytemuck::Pod>(&self, len: usize) -> In<T> {
        let len = len.min(self.bytes / size_of::<T>());
        // SAFETY: the block covers `len` elements, zeroed at first; the executor keeps it alive and orders access.
        unsafe { In::new(self.start.cast(), len) }
    }

    /// The tensor's elements for writing.
    pub fn output<T: bytemuck::Pod>(&self) -> Out<T> {
        self.output_of_len(self.tensor.bytes() / size_of::<T>())
    }

    /// `len` elements for writing, when the layout is not that of the tensor; fewer if the block ends before.
    pub fn output_of_len<T: bytemuck::Pod>(&self, len: usize) -> Out<T> {
        let len = len.min(self.bytes / size_of::<T>());
        // SAFETY: as for `input_of_len`; only one kernel of a batch writes a slot.
        unsafe { Out::new(self.start.cast(), len) }
    }

    /// The tensor's bytes, for the host to fill between steps.
    pub fn write(&self, bytes: &[u8]) -> Result<()> {
        if bytes.len() != self.tensor.bytes() {
            let expected = self.tensor.bytes();
            return Err(Error::internal(format!(
                "{} bytes given for {} ({expected})",
                bytes.len(),
                self.tensor
            )));
        }
        // SAFETY: the block covers the tensor, and no kernel runs between steps.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start, bytes.len()) };
        Ok(())
    }

    /// A copy of the tensor's bytes, for the host to read between steps.
    pub fn read(&self) -> Vec<u8> {
        self.input::<u8>().as_slice().to_vec()
    }
}
