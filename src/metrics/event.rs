//! Events of a run.

use std::path::PathBuf;

use serde::Serialize;

/// One optimizer step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepReport {
    /// Optimizer steps done, this one included.
    pub step: usize,
    /// Passes over the data so far, with the part of the current one.
    pub epoch: f64,
    /// Mean over the supervised tokens of the window, in nats.
    pub loss: f64,
    pub learning_rate: f64,
    /// Global norm of the gradients before clipping.
    pub grad_norm: f64,
    /// Tokens that are not padding.
    pub tokens: usize,
    /// Tokens that the loss is computed on.
    pub supervised_tokens: usize,
    pub tokens_per_second: f64,
    /// Time from the first micro-batch's start to the update's end.
    pub step_ms: f64,
    /// Time spent waiting for the window's rows.
    pub data_wait_ms: f64,
}

/// One pass over the validation rows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EvaluationReport {
    pub step: usize,
    pub epoch: f64,
    /// Mean over all supervised tokens, in nats.
    pub eval_loss: f64,
    /// exp(eval_loss)
    pub perplexity: f64,
    pub supervised_tokens: usize,
    pub eval_ms: f64,
    /// Whether it is the lowest loss of the run so far.
    pub best: bool,
}

/// A prompt and how the model continues it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sample {
    /// Optimizer steps done before.
    pub step: usize,
    pub prompt: String,
    pub text: String,
}

/// Everything a run tells.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    Started {
        model: String,
        device: String,
        total_steps: usize,
        first_step: usize,
        rows: usize,
        validation_rows: usize,
        trained_parameters: usize,
        total_parameters: usize,
    },
    /// A plan was compiled for a batch shape that had none.
    Planned {
        rows: usize,
        sequence: usize,
        /// Whether the plan ends with an update: not for evaluation, nor for all but the last micro-batch of a window.
        updates: bool,
        operations: usize,
        batches: usize,
        arena_bytes: usize,
    },
    Step(StepReport),
    Evaluation(EvaluationReport),
    Sample(Sample),
    Saved {
        step: usize,
        path: PathBuf,
    },
    /// Something the user should know that does not stop the run.
    Notice {
        message: String,
    },
    Finished {
        steps: usize,
        seconds: f64,
        path: PathBuf,
    },
}
