//! `[log]`: how often a step is reported.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How often a step is reported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogSection {
    /// Optimizer steps between lines in metrics.jsonl; each reads the loss off the device, which waits for it.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub logging_steps: usize,
}

impl Default for LogSection {
    fn default() -> Self {
        Self { logging_steps: 1 }
    }
}
