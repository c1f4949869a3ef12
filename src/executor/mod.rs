//! Runs plans.

mod pool;

pub use pool::{Batch, ThreadPool};
