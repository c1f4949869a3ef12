//! Checkpoints: everything a run needs to go on as if it had never stopped.
//!
//! A checkpoint is the folder `checkpoint-{step}` in the run directory. It holds the trained weights (an adapter or a
//! model, written by the caller), `optimizer.safetensors` and `state.json` ([`TrainingState`]), `trainer_state.json` in
//! Hugging Face's shape ([`TrainerState`]) and `checksums.json`. It is written beside its place and renamed
//! ([`atomic`]), so that a crash leaves the old one or the new one, never half of either.

pub mod atomic;
mod checksums;
mod retention;
mod state;
mod trainer_state;

use std::path::{Path, PathBuf};

pub use retention::{latest, list, retain};
pub use state::{NamedTensor, RunState, TrainingState};
pub use trainer_state::TrainerState;

use crate::error::{Result, ResultExt};

/// What goes into a checkpoint.
pub struct CheckpointContents<'a> {
    pub training: &'a TrainingState,
    pub trainer: &'a TrainerState,
    /// Writes the adapter or model files, and the tokenizer's, into the folder that it is given.
    pub write_model: &'a mut dyn FnMut(&Path) -> Result<()>,
}

/// A checkpoint read back; the weights are read from `folder` by whoever wrote them.
#[derive(Debug)]
pub struct Checkpoint {
    pub folder: PathBuf,
    pub training: TrainingState,
    pub trainer: TrainerState,
}

/// Writes `checkpoint-{step}` into the run directory, replacing one of the same step, and returns its path.
pub fn save(run_dir: &Path, step: u64, contents: CheckpointContents) -> Result<PathBuf> {
    let target = run_dir.join(format!("checkpoint-{step}"));
    let CheckpointContents { training, trainer, write_model } = contents;
    atomic::write_directory(&target, |folder| {
        write_model(folder)?;
        training.write(folder)?;
        trainer.write(folder)?;
        checksums::write(folder)
    })
    .context(|| format!("saving {}", target.display()))?;
    Ok(target)
}

/// Reads a checkpoint after checking every file in it against its checksum.
///
/// A file that is missing, cut short or changed is a data error naming it.
pub fn load(folder: &Path) -> Result<Checkpoint> {
    let doing = || format!("reading the checkpoint {}", folder.display());
    checksums::verify(folder).context(doing)?;
    let training = TrainingState::read(folder).context(doing)?;
    let trainer = TrainerState::read(folder).context(doing)?;
    Ok(Checkpoint { folder: folder.to_path_buf(), training, trainer })
}

#[cfg(test)]
mod tests;
