//! Events of a run.
//!
//! The names of variants and fields are those of `metrics.jsonl`. They stay: versions add fields and kinds, and readers
//! take the default of a field that is missing. Numbers that are not finite are `null` in JSON and NaN when read back.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::number;
use super::reports::{
    EvaluationReport, LayerReport, MemoryKind, OperationKindTime, PassCount, Sample, StepReport,
};

/// Everything a run tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The first event of a process: a run that is resumed starts again.
    Started {
        /// Name of the run: its folder's.
        #[serde(default)]
        run: String,
        model: String,
        device: String,
        /// Optimizer steps that the run shall have done at its end.
        total_steps: usize,
        /// Optimizer steps done by earlier processes of the run.
        first_step: usize,
        /// Passes over the training rows that the run shall have done at its end.
        #[serde(default, with = "number")]
        total_epochs: f64,
        /// Training rows.
        rows: usize,
        validation_rows: usize,
        trained_parameters: usize,
        total_parameters: usize,
    },
    /// A plan was compiled for a batch shape that had none.
    Planned {
        /// Rows of the batch shape.
        rows: usize,
        /// Tokens of each row.
        sequence: usize,
        /// Whether the plan ends with an update: not for evaluation, nor for all but the last micro-batch of a window.
        updates: bool,
        /// Operations that every step runs.
        operations: usize,
        /// Groups of independent operations that run one after the other.
        batches: usize,
        /// Bytes of the intermediate values at the peak.
        arena_bytes: usize,
        /// Operations of the graph before any pass.
        #[serde(default)]
        operations_before: usize,
        /// Operations after each pass, in the order of the passes.
        #[serde(default)]
        passes: Vec<PassCount>,
        /// Operations in each batch, in the order they run.
        #[serde(default)]
        widths: Vec<u32>,
        /// Kernels that a step dispatches; several operations may share one, views need none.
        #[serde(default)]
        kernels: usize,
        /// Time to compile the plan.
        #[serde(default, with = "number")]
        plan_ms: f64,
    },
    Step(StepReport),
    Evaluation(EvaluationReport),
    Sample(Sample),
    /// Where the observer timed operations one by one: time by kind of operation, over one step.
    Profile {
        /// Optimizer steps done, the measured one included.
        step: usize,
        kinds: Vec<OperationKindTime>,
    },
    /// Bytes on the device and in the process.
    Memory {
        step: usize,
        kinds: Vec<MemoryKind>,
        /// Resident bytes of the process.
        #[serde(default)]
        process_bytes: u64,
        /// The most that the run may take; 0 where there is no limit.
        #[serde(default)]
        limit_bytes: u64,
    },
    /// Norms of the adapters, layer by layer, from the first.
    Layers {
        step: usize,
        layers: Vec<LayerReport>,
    },
    Saved {
        /// Optimizer steps done.
        step: usize,
        path: PathBuf,
    },
    /// Something the user should know that does not stop the run.
    Notice {
        message: String,
    },
    /// A fused kernel cannot run on the device; plain operations do its work.
    Fallback {
        /// Kind of the fused operation.
        operation: String,
        reason: String,
    },
    /// The loss or the gradients are not numbers; the update was not applied.
    NotFinite {
        /// The step that was attempted.
        step: usize,
        #[serde(default = "number::nan", with = "number")]
        loss: f64,
        #[serde(default = "number::nan", with = "number")]
        grad_norm: f64,
        /// Rows of the window, as `file:line`, the first few.
        #[serde(default)]
        rows: Vec<String>,
    },
    /// The user changed the learning rate.
    LearningRate {
        /// Optimizer steps done before the change.
        step: usize,
        /// What the schedule is multiplied with from now on, all changes together.
        #[serde(default = "number::nan", with = "number")]
        scale: f64,
        /// The rate of the next step.
        #[serde(default = "number::nan", with = "number")]
        learning_rate: f64,
    },
    /// The run waits after this step until it is resumed.
    Paused {
        step: usize,
    },
    Resumed {
        step: usize,
    },
    Finished {
        /// Optimizer steps done.
        steps: usize,
        /// Wall time of the process, in seconds.
        #[serde(with = "number")]
        seconds: f64,
        /// The adapter's or the model's folder.
        path: PathBuf,
    },
    /// The run ended early.
    Failed {
        /// Optimizer steps done.
        step: usize,
        message: String,
        /// What the user can do.
        #[serde(default)]
        hint: Option<String>,
    },
}

impl Event {
    /// Optimizer steps done when it happened, where the event says so.
    pub fn step(&self) -> Option<usize> {
        match self {
            Self::Step(report) => Some(report.step),
            Self::Evaluation(report) => Some(report.step),
            Self::Sample(sample) => Some(sample.step),
            Self::Started { first_step: step, .. }
            | Self::Profile { step, .. }
            | Self::Memory { step, .. }
            | Self::Layers { step, .. }
            | Self::Saved { step, .. }
            | Self::NotFinite { step, .. }
            | Self::LearningRate { step, .. }
            | Self::Paused { step }
            | Self::Resumed { step }
            | Self::Finished { steps: step, .. }
            | Self::Failed { step, .. } => Some(*step),
            Self::Planned { .. } | Self::Notice { .. } | Self::Fallback { .. } => None,
        }
    }
}
