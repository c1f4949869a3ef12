//! The training loop and what it is made of.

mod control;
mod memory;
pub mod model;
pub mod prefix;
mod run;
mod save;
pub mod setup;
mod step;
mod trainer;

pub use control::Control;
pub use memory::PlannedMemory;
pub use run::run;
pub use save::{Best, ModelWriter, Progress};
pub use step::{StepBuilder, StepGraph, StepKind};
pub use trainer::{NamedTensors, Trainer};
