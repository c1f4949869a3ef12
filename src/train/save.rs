//! What a run writes: checkpoints, the final adapter or model.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::model::OpenModel;
use super::{NamedTensors, Trainer};
use crate::adapter::{
    Adaptation, AdaptedLinear, AdapterSpec, AdapterWeights, LoraPair, SavedWeight, peft, token_rows_name,
};
use crate::checkpoint::{
    self, CheckpointContents, NamedTensor, RunState, TrainerState, TrainingState, atomic,
};
use crate::error::{Error, Result};
use crate::executor::HostTensor;
use crate::metrics::{EvaluationReport, StepReport};
use crate::model::{Trained, export};
use crate::tensor_file::FloatType;

/// Writes trained values in the layout that other tools read.
pub struct ModelWriter<'a> {
    pub model: &'a OpenModel,
    /// The adapter as the configuration describes it; `None` where every weight is trained.
    pub spec: Option<&'a AdapterSpec>,
}

impl ModelWriter<'_> {
    /// A PEFT adapter or a Hugging Face model, with the tokenizer, into an existing folder.
    ///
    /// # Errors
    /// A data error if a file cannot be written.
    pub fn write(&self, folder: &Path, trained: &Trained, values: &NamedTensors) -> Result<()> {
        match (trained, self.spec) {
            (Trained::Adapters(adaptation), Some(spec)) => {
                let layers: Vec<AdaptedLinear> = adaptation.pairs.values().cloned().collect();
                let weights = adapter_weights(adaptation, values)?;
                peft::write(folder, spec, &self.model.name, &layers, &weights)?;
                export::write_tokenizer(&self.model.source, folder)
            }
            _ => export::export(&self.model.source, folder, Some(FloatType::Bf16), |spec, buffer| {
                buffer.copy_from_slice(&numbers(values, &spec.name)?);
                Ok(())
            }),
        }
    }

    /// The final result, put in place whole or not at all.
    ///
    /// # Errors
    /// A data error if a file cannot be written.
    pub fn write_final(&self, folder: &Path, trained: &Trained, values: &NamedTensors) -> Result<()> {
        atomic::write_directory(folder, |folder| self.write(folder, trained, values))
    }
}

fn adapter_weights(adaptation: &Adaptation, values: &NamedTensors) -> Result<AdapterWeights> {
    let mut weights = AdapterWeights::default();
    for (path, layer) in &adaptation.pairs {
        let &AdaptedLinear { rank, in_features, out_features, .. } = layer;
        let (a, b) = (numbers(values, &layer.a_name())?, numbers(values, &layer.b_name())?);
        let magnitude = layer.dora.then(|| numbers(values, &layer.magnitude_name())).transpose()?;
        weights.pairs.insert(path.clone(), LoraPair { rank, in_features, out_features, a, b, magnitude });
    }
    for (name, shape) in &adaptation.saved {
        let saved = SavedWeight { shape: shape.clone(), values: numbers(values, name)? };
        weights.saved.insert(name.clone(), saved);
    }
    for (table, rows) in &adaptation.tokens {
        let name = token_rows_name(table);
        let shape = vec![rows.ids.len(), rows.width];
        let saved = SavedWeight { shape, values: numbers(values, &name)? };
        weights.saved.insert(name, saved);
    }
    Ok(weights)
}

fn numbers(values: &NamedTensors, name: &str) -> Result<Vec<f32>> {
    let value = values.get(name).ok_or_else(|| Error::internal(format!("{name} was not trained")))?;
    Ok(value.clone().into_f32())
}

/// What a run remembers besides its tensors.
#[derive(Debug, Clone)]
pub struct Progress {
    pub epoch: f64,
    pub loader: Value,
    pub tokens_seen: u64,
    pub history: Vec<Map<String, Value>>,
    pub best: Option<Best>,
    /// Evaluations since the best one.
    pub evaluations_without_improvement: usize,
    /// What the user multiplied the learning rate with.
    pub learning_rate_scale: f64,
    /// What trainer_state.json says of the configuration.
    pub settings: TrainerState,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            epoch: 0.0,
            loader: Value::Null,
            tokens_seen: 0,
            history: Vec::new(),
            best: None,
            evaluations_without_improvement: 0,
            learning_rate_scale: 1.0,
            settings: TrainerState::default(),
        }
    }
}

/// The best evaluation so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Best {
    pub loss: f64,
    pub step: usize,
}

impl Progress {
    /// Keeps a step for trainer_state.json, under the names of Hugging Face's Trainer.
    pub fn remember_step(&mut self, report: &StepReport) {
        let StepReport { step, epoch, loss, grad_norm, learning_rate, .. } = report;
        self.remember(json!({
            "epoch": epoch, "grad_norm": grad_norm, "learning_rate": learning_rate, "loss": loss, "step": step,
        }));
    }

    /// Keeps an evaluation likewise.
    pub fn remember_evaluation(&mut self, report: &EvaluationReport) {
        let EvaluationReport { step, epoch, eval_loss, perplexity, eval_ms, .. } = report;
        self.remember(json!({
            "epoch": epoch, "eval_loss": eval_loss, "eval_perplexity": perplexity, "eval_runtime": eval_ms / 1e3,
            "step": step,
        }));
    }

    fn remember(&mut self, row: Value) {
        if let Value::Object(fields) = row {
            self.history.push(fields);
        }
    }

    /// The trained values of the best checkpoint, if there is one.
    ///
    /// # Errors
    /// A data error if it is damaged.
    pub fn best_values(&self, run_dir: &Path) -> Result<Option<NamedTensors>> {
        let Some(best) = &self.best else { return Ok(None) };
        let folder = run_dir.join(name(best.step));
        if !folder.is_dir() {
            return Ok(None);
        }
        let (_, _, values) = Self::load(&folder)?;
        Ok(Some(values))
    }

    /// Writes `checkpoint-{step}` and deletes those beyond `limit`, never the best.
    ///
    /// # Errors
    /// A data error if a file cannot be written; earlier checkpoints are then still whole.
    pub async fn save(
        &self,
        trainer: &Trainer,
        writer: &ModelWriter<'_>,
        run_dir: &Path,
        limit: usize,
    ) -> Result<PathBuf> {
        let values = trainer.trained_values().await?;
        let tensors = trainer.moments().await?.into_iter().chain(values.clone());
        let training =
            TrainingState { run: self.run_state(trainer.step), tensors: tensors.map(named).collect() };
        let state = self.trainer_state(trainer.step, trainer.schedule.total_steps);
        let trained = &trainer.builder.trained;
        let contents = CheckpointContents {
            training: &training,
            trainer: &state,
            write_model: &mut |folder| writer.write(folder, trained, &values),
        };
        let path = checkpoint::save(run_dir, trainer.step as u64, contents)?;
        let best: Vec<PathBuf> = self.best.iter().map(|best| run_dir.join(name(best.step))).collect();
        checkpoint::retain(run_dir, limit, &best)?;
        Ok(path)
    }

    /// What a checkpoint remembers, and its tensors.
    ///
    /// # Errors
    /// A data error if the checkpoint is damaged.
    pub fn load(folder: &Path) -> Result<(Self, usize, NamedTensors)> {
        let checkpoint = checkpoint::load(folder)?;
        let TrainingState { run, tensors } = checkpoint.training;
        let best = run.measures.get("best_loss").zip(run.counters.get("best_step"));
        let progress = Self {
            epoch: run.measures.get("epoch").copied().unwrap_or(0.0),
            loader: run.loader,
            tokens_seen: run.counters.get("tokens_seen").copied().unwrap_or(0),
            history: checkpoint.trainer.log_history,
            best: best.map(|(&loss, &step)| Best { loss, step: step as usize }),
            evaluations_without_improvement: run.counters.get("stale_evaluations").copied().unwrap_or(0)
                as usize,
            learning_rate_scale: run.measures.get("learning_rate_scale").copied().unwrap_or(1.0),
            settings: TrainerState::default(),
        };
        let tensors = tensors
            .into_iter()
            .map(|(name, tensor)| Ok((name, HostTensor::f32(&tensor.shape, tensor.values)?)));
        Ok((progress, run.global_step as usize, tensors.collect::<Result<_>>()?))
    }

    fn run_state(&self, step: usize) -> RunState {
        let mut run =
            RunState { global_step: step as u64, loader: self.loader.clone(), ..RunState::default() };
        run.counters.insert("tokens_seen".into(), self.tokens_seen);
        run.counters.insert("stale_evaluations".into(), self.evaluations_without_improvement as u64);
        run.measures.insert("epoch".into(), self.epoch);
        run.measures.insert("learning_rate_scale".into(), self.learning_rate_scale);
        if let Some(best) = &self.best {
            run.counters.insert("best_step".into(), best.step as u64);
            run.measures.insert("best_loss".into(), best.loss);
        }
        run
    }

    fn trainer_state(&self, step: usize, max_steps: usize) -> TrainerState {
        TrainerState {
            best_global_step: self.best.as_ref().map(|best| best.step as u64),
            best_metric: self.best.as_ref().map(|best| best.loss),
            best_model_checkpoint: self.best.as_ref().map(|best| name(best.step)),
            epoch: self.epoch,
            global_step: step as u64,
            max_steps: max_steps as u64,
            num_input_tokens_seen: self.tokens_seen,
            log_history: self.history.clone(),
            ..self.settings.clone()
        }
    }
}

fn name(step: usize) -> String {
    format!("checkpoint-{step}")
}

fn named((name, value): (String, HostTensor)) -> (String, NamedTensor) {
    let shape = value.tensor.shape.dims().to_vec();
    (name, NamedTensor { shape, values: value.into_f32() })
}
