//! The `[data]` section.

use std::path::PathBuf;

/// Resolved `[data]` section.
#[derive(Debug, Clone, PartialEq)]
pub struct DataSection {
    pub train: Vec<PathBuf>,
    pub validation: Validation,
    pub validation_fraction: f64,
    pub max_length: usize,
    pub shuffle: bool,
    pub packing: bool,
    pub train_on: TrainOn,
    pub overlong: Overlong,
    pub chat_template: Option<PathBuf>,
}

/// Where validation rows come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Validation {
    None,
    Auto,
    Files(Vec<PathBuf>),
}

/// Which tokens are training targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrainOn {
    Assistant,
    Last,
    All,
}

/// What happens to rows longer than `max_length`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlong {
    Truncate,
    Drop,
}
