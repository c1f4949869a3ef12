//! `[schedule]`: the learning rate as a function of the step.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The learning rate over the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleSection {
    /// After the warmup: "constant", or down to min_learning_rate at the last step as "linear" or "cosine".
    pub name: ScheduleKind,
    /// Optimizer steps over which the learning rate rises from 0 to its highest value.
    #[schemars(range(max = 1_000_000_000))]
    pub warmup_steps: usize,
    /// Learning rate at the last step of a linear or cosine schedule.
    #[schemars(range(min = 0))]
    pub min_learning_rate: f64,
}

impl Default for ScheduleSection {
    fn default() -> Self {
        Self { name: ScheduleKind::Cosine, warmup_steps: 0, min_learning_rate: 0.0 }
    }
}

/// Shape of the schedule after the warmup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum ScheduleKind {
    Constant,
    Linear,
    Cosine,
}
