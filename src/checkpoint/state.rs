//! The state of training itself: optimizer tensors and counters.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result, ResultExt};
use crate::tensor_file::{FloatType, SafetensorsFile, SafetensorsWriter, TensorSpec};

const TENSORS: &str = "optimizer.safetensors";
const STATE: &str = "state.json";

/// Raised when a field changes its meaning; other versions are refused.
const FORMAT_VERSION: u32 = 1;

/// An f32 tensor, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// Everything besides the tensors.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RunState {
    /// Optimizer steps taken.
    pub global_step: u64,
    /// Hash of the settings that a resumed run must share with this one.
    pub config_fingerprint: String,
    /// The data loader's position, in its own form.
    pub loader: Value,
    /// Random streams by name, in their own form (seed, stream and word position).
    pub random_streams: BTreeMap<String, Value>,
    /// Counters that outlive a run: tokens seen, rows seen, best step ...
    pub counters: BTreeMap<String, u64>,
    /// Numbers that outlive a run: best evaluation loss ...
    pub measures: BTreeMap<String, f64>,
}

/// What a resumed run needs besides the weights.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TrainingState {
    pub run: RunState,
    /// Optimizer moments and master weights; their bits are kept.
    pub tensors: BTreeMap<String, NamedTensor>,
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    format_version: u32,
    #[serde(flatten)]
    run: T,
}

impl TrainingState {
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let header = self.tensors.iter().map(|(name, tensor)| {
            let spec = TensorSpec { name: name.clone(), shape: tensor.shape.clone() };
            (spec, FloatType::F32)
        });
        let mut writer = SafetensorsWriter::create(&folder.join(TENSORS), header.collect())?;
        for (name, tensor) in &self.tensors {
            writer.write(name, &tensor.values)?;
        }
        writer.finish()?;
        let versioned = Versioned { format_version: FORMAT_VERSION, run: &self.run };
        let text =
            serde_json::to_string_pretty(&versioned).map_err(|error| Error::internal(error.to_string()))?;
        std::fs::write(folder.join(STATE), text + "\n").context(|| format!("writing {STATE}"))
    }

    pub(super) fn read(folder: &Path) -> Result<Self> {
        let text = std::fs::read(folder.join(STATE)).context(|| format!("reading {STATE}"))?;
        let damaged = |error: serde_json::Error| Error::data(format!("{STATE} is damaged: {error}"));
        let value: Value = serde_json::from_slice(&text).map_err(damaged)?;
        let version = value.get("format_version").and_then(Value::as_u64);
        if version != Some(u64::from(FORMAT_VERSION)) {
            return Err(Error::data(format!("{STATE} has format {version:?}, expected {FORMAT_VERSION}"))
                .hint("resume with the version of lazytune that wrote the checkpoint"));
        }
        let versioned: Versioned<RunState> = serde_json::from_value(value).map_err(damaged)?;
        let file = SafetensorsFile::open(&folder.join(TENSORS))?;
        let mut tensors = BTreeMap::new();
        for (name, entry) in file.entries() {
            let values = file.read_f32(name, &entry.shape)?;
            tensors.insert(name.clone(), NamedTensor { shape: entry.shape.clone(), values });
        }
        Ok(Self { run: versioned.run, tensors })
    }

    /// Takes a tensor out of the state; one that is missing or of another shape is a data error.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let hint = "the checkpoint is from a run with other settings: resume it with its own config";
        match self.tensors.remove(name) {
            None => Err(Error::data(format!("the checkpoint has no tensor {name}")).hint(hint)),
            Some(tensor) if tensor.shape != shape => {
                Err(Error::data(format!("the checkpoint's {name} is {:?}, expected {shape:?}", tensor.shape))
                    .hint(hint))
            }
            Some(tensor) => Ok(tensor.values),
        }
    }
}
