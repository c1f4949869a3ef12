//! Safetensors files, read and written one tensor at a time.
//!
//! Models, adapters and checkpoints all keep their tensors in this format. Reading goes through positioned reads
//! instead of a memory map: a file that shrinks while it is open gives an error, not a crash, and a tensor is
//! converted to f32 through a small buffer, so that nothing but the tensor itself is held in memory.

mod convert;
mod header;
mod range_file;
mod reader;
mod writer;

pub use convert::FloatType;
pub use range_file::RangeFile;
pub use reader::{SafetensorsFile, TensorEntry};
pub use writer::{SafetensorsWriter, TensorSpec};

#[cfg(test)]
mod tests;
