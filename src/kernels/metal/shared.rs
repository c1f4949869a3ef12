//! Memory that both the host and the GPU see.

use candle_metal_kernels::metal::Buffer;
use objc2_metal::{MTLResource, MTLStorageMode};

use crate::error::{Error, Result};

/// Whether the host may touch the first bytes of a buffer.
fn reach(buffer: &Buffer, bytes: usize) -> Result<()> {
    let shared = buffer.as_ref().storageMode() == MTLStorageMode::Shared;
    let fits = bytes <= buffer.length();
    (shared && fits).then_some(()).ok_or_else(|| Error::internal("the host does not see that memory"))
}

/// Overwrites the first bytes of a buffer. Kernels in flight that read them see old or new ones.
///
/// # Errors
/// An internal error if the buffer is smaller, or only the GPU sees it.
pub fn write(buffer: &Buffer, bytes: &[u8]) -> Result<()> {
    reach(buffer, bytes.len())?;
    // SAFETY: shared buffers are mapped for as long as they live, and this one holds as many bytes; any bytes are valid.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.contents(), bytes.len()) };
    Ok(())
}

/// A copy of the first bytes of a buffer, as the kernels that the host has waited for left them.
///
/// # Errors
/// An internal error if the buffer is smaller, or only the GPU sees it.
pub fn read(buffer: &Buffer, bytes: usize) -> Result<Vec<u8>> {
    reach(buffer, bytes)?;
    let mut copy = vec![0; bytes];
    // SAFETY: as above; the copy has room for all of them and lies elsewhere.
    unsafe { std::ptr::copy_nonoverlapping(buffer.contents(), copy.as_mut_ptr(), bytes) };
    Ok(copy)
}
