//! The training loop and what it is made of.

pub mod adapter;
mod clock;
pub mod control;
pub mod hub_data;
mod lock;
mod memory;
pub mod model;
mod new_tokens;
mod pending;
pub mod prefix;
pub mod process;
mod rows;
mod run;
mod save;
pub mod setup;
mod steering;
mod step;
mod survey;
mod trainer;

pub use clock::{StageTimes, StepClock};
pub use control::Control;
pub use lock::RunLock;
pub use memory::PlannedMemory;
pub use run::run;
pub use save::{Best, ModelWriter, Progress};
pub use step::{StepBuilder, StepGraph, StepKind};
pub use trainer::{NamedTensors, Trainer};
