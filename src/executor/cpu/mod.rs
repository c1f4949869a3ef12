//! The CPU: one arena, own threads, own kernels.

mod constants;
mod device;
mod target;

pub use device::CpuDevice;
pub use target::{CpuOptions, CpuTarget};
