//! Devices that candle drives: Metal, CUDA, and candle's own CPU for tests. Plans hold plain operations only here;
//! each becomes a candle operation on tensors in the device's memory.

mod device;
mod experts;
mod operations;

pub use device::CandleDevice;
