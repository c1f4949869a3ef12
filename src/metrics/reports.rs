//! What events carry: numbers of a step, an evaluation, a plan, the memory, the layers.

use serde::{Deserialize, Serialize};

use super::number;

/// One optimizer step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StepReport {
    /// Optimizer steps done, this one included.
    pub step: usize,
    /// Passes over the data so far, with the part of the current one.
    #[serde(with = "number")]
    pub epoch: f64,
    /// Mean over the supervised tokens of the window, in nats.
    #[serde(with = "number")]
    pub loss: f64,
    #[serde(with = "number")]
    pub learning_rate: f64,
    /// Global norm of the gradients before clipping.
    #[serde(with = "number")]
    pub grad_norm: f64,
    /// Tokens that are not padding.
    pub tokens: usize,
    /// Tokens that the loss is computed on.
    pub supervised_tokens: usize,
    /// `tokens` per second of `step_ms`.
    #[serde(with = "number")]
    pub tokens_per_second: f64,
    /// Time from the first micro-batch's start to the update's end; where several steps were waited for together, their
    /// time from the first one's start to the last one's end, divided by their number.
    #[serde(with = "number")]
    pub step_ms: f64,
    /// Time spent waiting for the window's rows.
    #[serde(with = "number")]
    pub data_wait_ms: f64,
    /// Part of `step_ms` before the loss is known; 0 with the next two where stages are not told apart, as on GPUs.
    #[serde(with = "number")]
    pub forward_ms: f64,
    /// Part of `step_ms` from the loss to the gradients.
    #[serde(with = "number")]
    pub backward_ms: f64,
    /// Part of `step_ms` for clipping and the update.
    #[serde(with = "number")]
    pub optimizer_ms: f64,
    /// Evaluation and sampling since the step reported before.
    #[serde(with = "number")]
    pub eval_ms: f64,
    /// Time spent saving since the step reported before.
    #[serde(with = "number")]
    pub checkpoint_ms: f64,
    /// Wall time since the process started its first step, in seconds, pauses included.
    #[serde(with = "number")]
    pub elapsed_seconds: f64,
    /// `tokens` of all steps of the run; 0 where it is not counted.
    pub tokens_seen: u64,
    /// Rows of the current epoch that were used; 0 where it is not counted.
    pub rows_seen: usize,
    /// Plans found in the cache by the process.
    pub plan_hits: u64,
    /// Plans that had to be compiled.
    pub plan_misses: u64,
    /// Values found in the tensor cache by the process.
    pub tensor_hits: u64,
    /// Values that the tensor cache had to compute.
    pub tensor_misses: u64,
    /// Command buffers that this step committed (Metal).
    pub command_buffers: u64,
}

/// One pass over the validation rows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EvaluationReport {
    pub step: usize,
    #[serde(with = "number")]
    pub epoch: f64,
    /// Mean over all supervised tokens, in nats.
    #[serde(with = "number")]
    pub eval_loss: f64,
    /// exp(eval_loss)
    #[serde(with = "number")]
    pub perplexity: f64,
    pub supervised_tokens: usize,
    #[serde(with = "number")]
    pub eval_ms: f64,
    /// Whether it is the lowest loss of the run so far.
    pub best: bool,
}

/// A prompt and how the model continues it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// Optimizer steps done before.
    pub step: usize,
    pub prompt: String,
    pub text: String,
}

/// Operations that a pass left in the graph.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PassCount {
    pub name: String,
    pub operations: usize,
}

/// Time of all operations of one kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OperationKindTime {
    pub kind: String,
    pub calls: u64,
    #[serde(with = "number")]
    pub ms: f64,
}

/// Bytes of one kind of memory: weights, trained values, optimizer state, activations, tensor cache.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryKind {
    pub kind: String,
    /// What the plan says.
    pub planned_bytes: u64,
    /// What is allocated; absent where the device does not tell.
    pub measured_bytes: Option<u64>,
}

/// One layer's adapters, all modules together.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LayerReport {
    /// Counted from 0.
    pub layer: usize,
    /// Frobenius norm of alpha / rank * B A, or of the trained weights where there is no adapter.
    #[serde(with = "number")]
    pub norm: f64,
    /// Norm of the last update over the norm of the trained values.
    #[serde(with = "number")]
    pub update_ratio: f64,
}
