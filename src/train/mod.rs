//! The training loop and what it is made of.

mod control;
mod step;
mod trainer;

pub use control::Control;
pub use step::{StepBuilder, StepGraph, StepKind};
pub use trainer::{NamedTensors, Trainer};
