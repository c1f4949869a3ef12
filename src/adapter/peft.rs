//! PEFT adapter folders: `adapter_config.json`, `adapter_model.safetensors` and `README.md`.

use std::collections::BTreeSet;
use std::path::Path;

pub use super::peft_config::PeftConfig;
use super::{AdaptedLinear, AdapterSpec, AdapterWeights, LinearModule, LoraPair, model_card, peft_config};
use crate::error::{Error, Result, ResultExt};
use crate::tensor_file::{FloatType, SafetensorsFile, SafetensorsWriter, TensorSpec};

const WEIGHTS: &str = "adapter_model.safetensors";
const PREFIX: &str = "base_model.model.";

/// An adapter that fits a model: the layers in the model's order, and their values.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    pub config: PeftConfig,
    pub layers: Vec<AdaptedLinear>,
    pub weights: AdapterWeights,
}

/// Writes the three files into an existing folder; values are stored as f32, names sorted.
pub fn write(folder: &Path, spec: &AdapterSpec, base_model: &str, weights: &AdapterWeights) -> Result<()> {
    let names: BTreeSet<_> =
        weights.keys().map(|path| path.rsplit('.').next().unwrap_or(path).to_owned()).collect();
    let names: Vec<_> = names.into_iter().collect();
    let config = serde_json::to_string_pretty(&peft_config::to_json(spec, base_model, &names))
        .map_err(|error| Error::internal(error.to_string()))?;
    write_text(folder, peft_config::FILE, &(config + "\n"))?;
    write_text(folder, "README.md", &model_card::model_card(spec, base_model))?;
    write_weights(&folder.join(WEIGHTS), weights)
}

fn write_text(folder: &Path, name: &str, text: &str) -> Result<()> {
    let path = folder.join(name);
    std::fs::write(&path, text).context(|| format!("writing {}", path.display()))
}

fn write_weights(path: &Path, weights: &AdapterWeights) -> Result<()> {
    let mut tensors = Vec::new();
    for (module, pair) in weights {
        tensors.push((name_of(module, 'A'), [pair.rank, pair.in_features], &pair.a));
        tensors.push((name_of(module, 'B'), [pair.out_features, pair.rank], &pair.b));
    }
    tensors.sort_by(|(left, ..), (right, ..)| left.cmp(right));
    let header =
        tensors.iter().map(|(name, shape, _)| (TensorSpec::new(name, shape), FloatType::F32)).collect();
    let mut writer = SafetensorsWriter::create(path, header)?;
    for (name, _, values) in &tensors {
        writer.write(name, values)?;
    }
    writer.finish()
}

fn name_of(module: &str, side: char) -> String {
    format!("{PREFIX}{module}.lora_{side}.weight")
}

/// Reads only the configuration of the adapter in `folder`.
pub fn read_config(folder: &Path) -> Result<PeftConfig> {
    peft_config::read(folder)
}

/// Reads an adapter for a model with these linear layers.
///
/// The file must hold exactly the pairs that the configuration asks for, in the right shapes, and finite.
pub fn read(folder: &Path, modules: &[LinearModule]) -> Result<Adapter> {
    let config = peft_config::read(folder)?;
    let doing = || format!("reading the adapter {}", folder.display());
    let layers = config.spec.resolve(modules).context(doing)?;
    let path = folder.join(WEIGHTS);
    if !path.exists() && folder.join("adapter_model.bin").exists() {
        return Err(Error::data(format!("{} holds only the pickled adapter_model.bin", folder.display()))
            .hint("load it with PEFT and save it with safe_serialization=True"));
    }
    let file = SafetensorsFile::open(&path)?;
    let mut weights = AdapterWeights::new();
    for linear in &layers {
        weights.insert(linear.path.clone(), read_pair(&file, linear).context(doing)?);
    }
    refuse_extra(&file, &weights).context(doing)?;
    Ok(Adapter { config, layers, weights })
}

fn read_pair(file: &SafetensorsFile, linear: &AdaptedLinear) -> Result<LoraPair> {
    let &AdaptedLinear { rank, in_features, out_features, .. } = linear;
    let read = |side, shape: [usize; 2]| -> Result<Vec<f32>> {
        let name = name_of(&linear.path, side);
        let values = file.read_f32(&name, &shape).map_err(|error| {
            error.hint("the adapter belongs to another base model, or its rank was changed by hand")
        })?;
        match values.iter().find(|value| !value.is_finite()) {
            Some(value) => Err(Error::data(format!("{name} holds {value}"))),
            None => Ok(values),
        }
    };
    let a = read('A', [rank, in_features])?;
    let b = read('B', [out_features, rank])?;
    Ok(LoraPair { rank, in_features, out_features, a, b })
}

fn refuse_extra(file: &SafetensorsFile, weights: &AdapterWeights) -> Result<()> {
    let known: BTreeSet<_> =
        weights.keys().flat_map(|path| [name_of(path, 'A'), name_of(path, 'B')]).collect();
    match file.entries().keys().find(|name| !known.contains(*name)) {
        None => Ok(()),
        Some(name) => Err(Error::data(format!("{} has the unexpected tensor {name}", file.path().display()))
            .hint("the adapter trains something other than LoRA pairs, or belongs to another base model")),
    }
}
