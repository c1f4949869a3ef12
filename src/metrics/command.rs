//! What a user asks of a running run, as plain data: one JSON object a line on the run's control socket.

use serde::{Deserialize, Serialize};

/// A wish. The training loop looks for one between steps and answers with events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", content = "value", rename_all = "snake_case")]
pub enum Command {
    /// Wait after the step that is running.
    Pause,
    Resume,
    /// Save a checkpoint after the step that is running.
    Checkpoint,
    /// Measure the validation loss after the step that is running.
    Evaluate,
    /// Continue this prompt with the model as it is.
    Sample(String),
    /// End the run early with the best checkpoint as its result.
    StopKeepBest,
    /// Multiply the learning rate of all later steps.
    ScaleLearningRate(f64),
    /// Close the dashboard, and end the run.
    Quit {
        /// Whether a run that is not done is stopped after its state is saved; else there is nothing to stop.
        stop: bool,
    },
    /// Close the dashboard and leave the run running.
    Detach,
}
