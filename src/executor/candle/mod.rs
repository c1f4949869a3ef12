//! Devices that candle drives: CUDA, GPUs with Metal that cannot run our kernels, and candle's own CPU for tests. A plain
//! operation becomes a candle operation on tensors in the device's memory; fused ones are decomposed.

mod device;
mod download;
mod experts;
mod operations;

pub use device::{CandleDevice, PlainTarget};
