//! Whether a run keeps its frozen prefix, and where.

use std::path::Path;

use super::{DiskRows, FrozenPrefix, MemoryRows, Store};
use crate::config::{ModelLocation, RunConfig};
use crate::data::Batch;
use crate::error::{Error, Result, ResultExt};
use crate::train::Trainer;
use crate::train::model::OpenModel;

/// Bound of the cache where the configuration names none.
const DEFAULT_BYTES: u64 = 1 << 30;
/// Less than this left by the memory budget holds no row worth keeping.
const LEAST_BYTES: u64 = 1 << 20;
/// Tokens of the row whose hidden states name a model.
const PROBE_TOKENS: usize = 64;

/// Gives `trainer` a prefix where the configuration allows it and it pays. `planned` is the memory of a whole step.
/// Returns what the user should know.
///
/// # Errors
/// A data error if the folder for the rows cannot be used; a device error if the model cannot be run.
pub async fn choose(
    config: &RunConfig,
    model: &OpenModel,
    trainer: &mut Trainer,
    windows_per_epoch: usize,
    planned: usize,
) -> Result<Option<String>> {
    let layers = trainer.builder.frozen_layers();
    let folder = config.train.frozen_prefix_cache_dir.as_deref();
    let asked = config.train.frozen_prefix_cache;
    let repeats = trainer.schedule.total_steps > windows_per_epoch;
    let mut ropes = model.decoder.ropes.iter().filter_map(|rope| rope.beyond.as_ref());
    let varies = ropes.any(|beyond| config.data.max_length > beyond.context);
    let against = against(config, layers, repeats, trainer.executor.device_name());
    if let Some(reason) = against.or(varies.then_some(ROPE_VARIES)) {
        let told = layers > 0 && repeats || asked.is_some() || folder.is_some();
        let told = told && asked != Some(0);
        return Ok(told.then(|| format!("the frozen prefix cache is off: {reason}")));
    }
    let mut limit = asked.unwrap_or(DEFAULT_BYTES);
    if let (Some(budget), None) = (config.model.memory_budget, folder) {
        limit = limit.min(budget.saturating_sub(planned as u64));
    }
    if limit < LEAST_BYTES {
        return Ok(Some("the frozen prefix cache is off: model.memory_budget leaves no room for it".into()));
    }
    let store = match folder {
        None => Store::Memory(MemoryRows::new(limit)),
        Some(folder) => {
            Store::Disk(DiskRows::open(folder, fingerprint(config, model, trainer, layers).await?, limit)?)
        }
    };
    trainer.prefix = Some(FrozenPrefix::new(layers, store));
    let place = folder.map_or_else(|| "memory".to_owned(), |folder| folder.display().to_string());
    let tokens = limit / trainer.builder.token_bytes().max(1) as u64;
    Ok(Some(format!(
        "frozen prefix cache: the lowest {layers} layers run once for each row, their results are kept in {place} (at \
         most {} MiB: {tokens} tokens)",
        limit >> 20
    )))
}

/// Why longrope goes without.
const ROPE_VARIES: &str =
    "a row's positions depend on whether its batch reaches beyond the model's original context";

/// Why a run does without, if it does. What is only not worth it gives way to what the user asks for.
fn against(config: &RunConfig, layers: usize, repeats: bool, device: &str) -> Option<&'static str> {
    let train = &config.train;
    let asked = train.frozen_prefix_cache.is_some() || train.frozen_prefix_cache_dir.is_some();
    if train.frozen_prefix_cache == Some(0) {
        return Some("train.frozen_prefix_cache says so");
    }
    if layers == 0 {
        return Some("no layer lies below the lowest that is trained (see adapter.layers_to_transform)");
    }
    if config.data.streaming {
        return Some("data.streaming does not keep rows");
    }
    if !repeats && train.frozen_prefix_cache_dir.is_none() {
        return Some("the run meets no row twice");
    }
    if !asked && config.data.packing && config.data.shuffle {
        return Some("data.packing with data.shuffle joins other rows in each epoch");
    }
    if !asked && device != "cpu" {
        return Some(
            "on this device the rounding of a row may depend on its batch (train.frozen_prefix_cache)",
        );
    }
    None
}

/// Names everything that decides a row's hidden states besides its tokens: the program, the device, the model's files
/// by name and size, and what the model makes of a row with tokens from its whole vocabulary.
async fn fingerprint(
    config: &RunConfig,
    model: &OpenModel,
    trainer: &Trainer,
    layers: usize,
) -> Result<[u8; 32]> {
    let builder = &trainer.builder;
    let mut hasher = blake3::Hasher::new();
    let described = format!(
        "{} {} {:?} {:?} {layers}",
        env!("CARGO_PKG_VERSION"),
        trainer.executor.device_name(),
        builder.dtype,
        builder.decoder
    );
    hasher.update(described.as_bytes());
    let files = match &config.model.path {
        ModelLocation::Gguf(path) => sizes(std::iter::once(path.as_path()))?,
        ModelLocation::Folder(_) | ModelLocation::Hub(_) => match model.folder() {
            Some(folder) => folder_sizes(folder)?,
            None => Vec::new(),
        },
    };
    hasher.update(format!("{files:?}").as_bytes());
    let length = PROBE_TOKENS.min(builder.max_positions);
    let batch = Batch {
        rows: 1,
        sequence: length,
        input_ids: (0..length).map(|at| (at * builder.decoder.vocab / length) as u32).collect(),
        positions: (0..length as u32).collect(),
        segments: vec![0; length],
        targets: Vec::new(),
        supervised_tokens: 0,
        tokens: length,
        sources: Vec::new(),
    };
    hasher.update(trainer.run_prefix(layers, &batch).await?.bytes());
    Ok(*hasher.finalize().as_bytes())
}

/// The weights and config.json of a model folder.
fn folder_sizes(folder: &Path) -> Result<Vec<(String, u64)>> {
    let doing = || format!("reading {}", folder.display());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).context(doing)? {
        let path = entry.context(doing)?.path();
        if path.extension().is_some_and(|kind| kind == "safetensors") || path.ends_with("config.json") {
            paths.push(path);
        }
    }
    paths.sort();
    sizes(paths.iter().map(|path| path.as_path()))
}

fn sizes<'a>(paths: impl Iterator<Item = &'a Path>) -> Result<Vec<(String, u64)>> {
    let size = |path: &Path| -> Result<(String, u64)> {
        let name = path.file_name().ok_or_else(|| Error::internal("a model file has no name"))?;
        let about = std::fs::metadata(path).context(|| format!("reading {}", path.display()))?;
        Ok((name.to_string_lossy().into_owned(), about.len()))
    };
    paths.map(size).collect()
}
