//! Devices that candle drives: Metal, CUDA, and candle's own CPU for tests. A plain operation becomes a candle operation
//! on tensors in the device's memory; fused ones are decomposed, but for those that Metal has kernels for.

mod device;
mod download;
mod experts;
#[cfg(feature = "metal")]
mod metal;
mod operations;

pub use device::{CandleDevice, FusedKernels};
