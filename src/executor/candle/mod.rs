//! Devices that candle drives: Metal, CUDA, and candle's own CPU for tests. A plain operation becomes a candle operation
//! on tensors in the device's memory; fused ones are decomposed, but for those that Metal has kernels for.

#[cfg(feature = "metal")]
mod capabilities;
mod device;
mod experts;
#[cfg(feature = "metal")]
mod metal;
mod operations;

#[cfg(feature = "metal")]
pub use capabilities::accelerator_facts;
pub use device::{CandleDevice, FusedKernels};

/// What is known of the GPU; nothing in builds without Metal.
#[cfg(not(feature = "metal"))]
pub fn accelerator_facts() -> Vec<(&'static str, String)> {
    Vec::new()
}
