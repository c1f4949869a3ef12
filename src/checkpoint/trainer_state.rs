//! `trainer_state.json`, as Hugging Face's Trainer writes it.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result, ResultExt};

const FILE: &str = "trainer_state.json";

/// The history of a run, for people and for tools that read Trainer's folders.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainerState {
    pub best_global_step: Option<u64>,
    pub best_metric: Option<f64>,
    pub best_model_checkpoint: Option<String>,
    pub epoch: f64,
    pub eval_steps: u64,
    pub global_step: u64,
    pub is_hyper_param_search: bool,
    pub is_local_process_zero: bool,
    pub is_world_process_zero: bool,
    /// Rows of `{loss, grad_norm, learning_rate, epoch, step}` or `{eval_loss, .., epoch, step}`.
    pub log_history: Vec<Map<String, Value>>,
    pub logging_steps: u64,
    pub max_steps: u64,
    pub num_input_tokens_seen: u64,
    pub num_train_epochs: u64,
    pub save_steps: u64,
    pub stateful_callbacks: Map<String, Value>,
    pub total_flos: f64,
    pub train_batch_size: u64,
    pub trial_name: Option<String>,
    pub trial_params: Option<Map<String, Value>>,
}

impl TrainerState {
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        // There is one process, which every reader of these two fields should know.
        let state = Self { is_local_process_zero: true, is_world_process_zero: true, ..self.clone() };
        let text =
            serde_json::to_string_pretty(&state).map_err(|error| Error::internal(error.to_string()))?;
        std::fs::write(folder.join(FILE), text + "\n").context(|| format!("writing {FILE}"))
    }

    pub(super) fn read(folder: &Path) -> Result<Self> {
        let text = std::fs::read(folder.join(FILE)).context(|| format!("reading {FILE}"))?;
        serde_json::from_slice(&text).map_err(|error| Error::data(format!("{FILE} is damaged: {error}")))
    }
}
