//! Devices that candle drives: CUDA, GPUs with Metal that cannot run our kernels, and candle's own CPU for tests. A plain
//! operation becomes a candle operation on tensors in the device's memory; fused ones are decomposed.

#[cfg(feature = "metal")]
mod capabilities;
mod device;
mod download;
mod experts;
mod operations;

#[cfg(feature = "metal")]
pub use capabilities::accelerator_facts;
pub use device::{CandleDevice, PlainTarget};

/// What is known of the GPU; nothing in builds without Metal.
#[cfg(not(feature = "metal"))]
pub fn accelerator_facts() -> Vec<(&'static str, String)> {
    Vec::new()
}
