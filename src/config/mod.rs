//! Run configuration.

pub mod data;

pub use data::{DataSection, Overlong, TrainOn, Validation};
