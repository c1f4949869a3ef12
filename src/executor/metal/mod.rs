//! Metal: a plan is recorded once as a program, commands over preallocated buffers, and replayed at every step.
//!
//! All of it but `hardware` runs anywhere: `tests/metal` replays programs with the kernels compiled as C++.

mod counts;
mod device;
#[cfg(feature = "metal")]
mod hardware;
mod hazards;
mod joined;
mod layout;
mod leaves;
mod lowered;
#[cfg(feature = "metal")]
mod pipelines;
mod program;
mod queue;
mod record;
mod replay;
mod sharing;
mod steps;
mod target;

pub use counts::{DISPATCHES_PER_BUFFER, Dispatches};
pub use device::ProgramDevice;
#[cfg(feature = "metal")]
pub use hardware::open;
pub use hazards::check;
pub use leaves::Leaves;
pub use program::{Buffer, Command, Holder, Program, Recorded, Region, Touch};
pub use queue::{Bound, CommandQueue};
pub use record::{SECONDS_PER_BUFFER, record, record_alone};
pub use target::MetalTarget;
