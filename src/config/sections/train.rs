//! `[train]`: batches, length of the run, evaluation, checkpoints and samples.

use super::values::SizeOrOff;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Batches, length of the run, evaluation, checkpoints and samples.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawTrain {
    /// Sequences in one forward and backward pass. Activation memory grows linearly with it.
    #[schemars(range(min = 1, max = 65_536))]
    pub batch_size: usize,
    /// Passes summed into one optimizer step: a larger effective batch at no memory, weighted by supervised tokens.
    #[schemars(range(min = 1, max = 65_536))]
    pub gradient_accumulation_steps: usize,
    /// Times that every row is trained on; fractions are allowed. Excludes max_steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64", extend("exclusiveMinimum" = 0, "maximum" = 1_000_000))]
    pub epochs: Option<f64>,
    /// Optimizer steps in all, instead of epochs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "usize", range(min = 1, max = 1_000_000_000))]
    pub max_steps: Option<usize>,
    /// Seed of every random stream: row order, adapter init, dropout, held-out rows.
    #[schemars(range(max = 9_223_372_036_854_775_807_u64))]
    pub seed: u64,
    /// Optimizer steps between evaluations on the validation rows, each one forward pass over all of them; 0 is never.
    #[schemars(range(max = 1_000_000_000))]
    pub eval_steps: usize,
    /// Optimizer steps between checkpoints, each about three times the adapter's size on disk; 0 is only at the end.
    #[schemars(range(max = 1_000_000_000))]
    pub save_steps: usize,
    /// Checkpoints kept besides the best one, older ones are deleted; 0 keeps all.
    #[schemars(range(max = 1_000_000_000))]
    pub save_total_limit: usize,
    /// The run directory, relative to the current folder; without it, runs/ and this file's name without .toml.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub output_dir: Option<PathBuf>,
    /// Stop after this many evaluations in a row without a lower validation loss; without it, never.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "usize", range(min = 1, max = 1_000_000_000))]
    pub early_stopping_patience: Option<usize>,
    /// Prompts answered before and after training, to see what changed; each costs two short generations.
    pub sample_prompts: Vec<String>,
    /// Longest answer to a sample prompt, in tokens.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub sample_max_tokens: usize,
    /// Most memory, or disk, for what the layers below the lowest adapted one compute: once, not in every epoch; or "off".
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SizeOrOff")]
    pub frozen_prefix_cache: Option<SizeOrOff>,
    /// Folder that keeps the frozen prefix cache on disk, also for later runs; without it, the cache is in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub frozen_prefix_cache_dir: Option<PathBuf>,
}

impl Default for RawTrain {
    fn default() -> Self {
        Self {
            batch_size: 4,
            gradient_accumulation_steps: 1,
            epochs: Some(3.0),
            max_steps: None,
            seed: 42,
            eval_steps: 50,
            save_steps: 50,
            save_total_limit: 2,
            output_dir: None,
            early_stopping_patience: None,
            sample_prompts: Vec::new(),
            sample_max_tokens: 48,
            frozen_prefix_cache: None,
            frozen_prefix_cache_dir: None,
        }
    }
}

/// Batches, length of the run, evaluation, checkpoints and samples, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainSection {
    /// Sequences in one forward and backward pass.
    pub batch_size: usize,
    pub gradient_accumulation_steps: usize,
    pub length: RunLength,
    pub seed: u64,
    /// Optimizer steps; 0 is never.
    pub eval_steps: usize,
    /// Optimizer steps; 0 is only at the end.
    pub save_steps: usize,
    /// 0 keeps all.
    pub save_total_limit: usize,
    /// The run directory, absolute; it need not exist.
    pub output_dir: PathBuf,
    /// Evaluations.
    pub early_stopping_patience: Option<usize>,
    pub sample_prompts: Vec<String>,
    /// Tokens.
    pub sample_max_tokens: usize,
    /// Bytes, 0 for never; `None` leaves the choice to the run.
    pub frozen_prefix_cache: Option<u64>,
    /// Absolute; it need not exist.
    pub frozen_prefix_cache_dir: Option<PathBuf>,
}

/// How long a run is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RunLength {
    /// Passes over the training rows; may be a fraction.
    Epochs(f64),
    /// Optimizer steps.
    Steps(usize),
}
