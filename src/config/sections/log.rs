//! `[log]`: how often a step is reported, and where to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How often a step is reported, and where to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogSection {
    /// Optimizer steps between lines in metrics.jsonl.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub logging_steps: usize,
    /// Optimizer steps whose losses are read off a GPU together, each time waiting for it: lines come as often.
    #[schemars(range(min = 1, max = 1000))]
    pub read_steps: usize,
    /// Write event files for TensorBoard to the run's folder tensorboard.
    pub tensorboard: bool,
    /// Answer Prometheus on this port of 127.0.0.1 while the run lasts; 0 takes a free one. Off where it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u16", range(min = 0, max = 65535))]
    pub prometheus_port: Option<u16>,
}

impl Default for LogSection {
    fn default() -> Self {
        Self { logging_steps: 1, read_steps: 10, tensorboard: true, prometheus_port: None }
    }
}
