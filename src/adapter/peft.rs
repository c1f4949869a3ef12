//! PEFT adapter folders: `adapter_config.json`, `adapter_model.safetensors` and `README.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::grown;
pub use super::grown::{GrownTables, grown_tables};
pub use super::peft_config::PeftConfig;
use super::{
    Adaptation, AdaptedLinear, AdapterSpec, AdapterWeights, LinearModule, LoraPair, SavedWeight, TokenRows,
    model_card, peft_config, token_rows_name,
};
use crate::error::{Error, Result, ResultExt};
use crate::tensor_file::{FloatType, SafetensorsFile, SafetensorsWriter, TensorSpec};

pub(super) const WEIGHTS: &str = "adapter_model.safetensors";
const PREFIX: &str = "base_model.model.";

/// An adapter that fits a model: the modules with a pair in the model's order, and all values.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    pub config: PeftConfig,
    pub layers: Vec<AdaptedLinear>,
    /// Rows of tables that are trained, by the name of the table's weight.
    pub tokens: BTreeMap<String, TokenRows>,
    pub weights: AdapterWeights,
}

impl Adapter {
    /// What the adapter trains.
    pub fn adaptation(&self) -> Adaptation {
        let rows: Vec<String> = self.tokens.keys().map(|table| token_rows_name(table)).collect();
        let whole = self.weights.saved.iter().filter(|(name, _)| !rows.contains(name));
        Adaptation {
            pairs: self.layers.iter().map(|layer| (layer.path.clone(), layer.clone())).collect(),
            saved: whole.map(|(name, saved)| (name.clone(), saved.shape.clone())).collect(),
            tokens: self.tokens.clone(),
        }
    }
}

/// Writes the three files into an existing folder; values are stored as f32, names sorted. `layers` are the modules that
/// the pairs belong to.
///
/// # Errors
/// A data error if a file cannot be written, an internal one if a module has no pair.
pub fn write(
    folder: &Path,
    spec: &AdapterSpec,
    base_model: &str,
    layers: &[AdaptedLinear],
    weights: &AdapterWeights,
) -> Result<()> {
    let names: BTreeSet<_> =
        layers.iter().map(|layer| layer.path.rsplit('.').next().unwrap_or(&layer.path).to_owned()).collect();
    let names: Vec<_> = names.into_iter().collect();
    let config = serde_json::to_string_pretty(&peft_config::to_json(spec, base_model, &names))
        .map_err(|error| Error::internal(error.to_string()))?;
    write_text(folder, peft_config::FILE, &(config + "\n"))?;
    write_text(folder, "README.md", &model_card::model_card(spec, base_model))?;
    write_weights(&folder.join(WEIGHTS), layers, weights)
}

fn write_text(folder: &Path, name: &str, text: &str) -> Result<()> {
    let path = folder.join(name);
    std::fs::write(&path, text).context(|| format!("writing {}", path.display()))
}

fn write_weights(path: &Path, layers: &[AdaptedLinear], weights: &AdapterWeights) -> Result<()> {
    let mut tensors: Vec<(String, Vec<usize>, &[f32])> = Vec::new();
    for layer in layers {
        let pair = weights
            .pairs
            .get(&layer.path)
            .ok_or_else(|| Error::internal(format!("{} has no pair", layer.path)))?;
        for (at, a, b) in pairs_of(layer, pair) {
            tensors.push((key(&at.a_name()), vec![pair.rank, pair.in_features], a));
            tensors.push((key(&at.b_name()), vec![pair.out_features, pair.rank], b));
        }
        if let Some(magnitude) = &pair.magnitude {
            tensors.push((key(&layer.magnitude_name()), vec![pair.out_features], magnitude));
        }
    }
    for (name, saved) in &weights.saved {
        tensors.push((key(name), saved.shape.clone(), &saved.values));
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

/// Each layer that is stored by itself, with its A and B: all experts of a layer of experts.
fn pairs_of<'a>(
    layer: &AdaptedLinear,
    pair: &'a LoraPair,
) -> impl Iterator<Item = (AdaptedLinear, &'a [f32], &'a [f32])> {
    let (of_a, of_b) = (pair.rank * pair.in_features, pair.out_features * pair.rank);
    layer
        .stored()
        .into_iter()
        .zip(pair.a.chunks(of_a.max(1)).zip(pair.b.chunks(of_b.max(1))))
        .map(|(layer, (a, b))| (layer, a, b))
}

/// The key of an adapter's tensor in the file.
pub(super) fn key(name: &str) -> String {
    format!("{PREFIX}{name}")
}

/// Reads only the configuration of the adapter in `folder`.
///
/// # Errors
/// A data error if it is missing, damaged, or asks for something unsupported.
pub fn read_config(folder: &Path) -> Result<PeftConfig> {
    peft_config::read(folder)
}

/// Reads an adapter for a model with these modules and weights.
///
/// The file must hold exactly what the configuration asks for, in the right shapes, and finite.
///
/// # Errors
/// A data error that says what does not fit.
pub fn read(folder: &Path, modules: &[LinearModule], model: &[TensorSpec]) -> Result<Adapter> {
    let config = peft_config::read(folder)?;
    let doing = || format!("reading the adapter {}", folder.display());
    let adaptation = config.spec.adaptation(modules, model).context(doing)?;
    let path = folder.join(WEIGHTS);
    if !path.exists() && folder.join("adapter_model.bin").exists() {
        return Err(Error::data(format!("{} holds only the pickled adapter_model.bin", folder.display()))
            .hint("load it with PEFT and save it with safe_serialization=True"));
    }
    let mut file = AdapterFile { file: SafetensorsFile::open(&path)?, met: BTreeSet::new() };
    let layers: Vec<AdaptedLinear> =
        modules.iter().filter_map(|module| adaptation.pairs.get(&module.path).cloned()).collect();
    let mut weights = AdapterWeights::default();
    for layer in &layers {
        weights.pairs.insert(layer.path.clone(), file.pair(layer).context(doing)?);
    }
    for (name, shape) in adaptation.saved {
        let values = file.values(&name, &shape).context(doing)?;
        weights.saved.insert(name, SavedWeight { shape, values });
    }
    for (table, rows) in &adaptation.tokens {
        let (name, shape) = (token_rows_name(table), vec![rows.ids.len(), rows.width]);
        let values = file.values(&name, &shape).context(doing)?;
        weights.saved.insert(name, SavedWeight { shape, values });
    }
    file.refuse_rest(&layers, model).context(doing)?;
    Ok(Adapter { config, layers, tokens: adaptation.tokens, weights })
}

/// PEFT stores the frozen table, `[vocab, hidden]`, beside the pair of a token table or an output head.
fn is_base_copy(name: &str, shape: &[usize], layers: &[AdaptedLinear]) -> bool {
    layers.iter().filter(|layer| layer.layer.is_none()).any(|layer| {
        name == key(&format!("{}.base_layer.weight", layer.path)) && shape == layer.weight_dims()
    })
}

/// The file of an adapter's values, and which of them have been asked for.
struct AdapterFile {
    file: SafetensorsFile,
    met: BTreeSet<String>,
}

impl AdapterFile {
    fn pair(&mut self, layer: &AdaptedLinear) -> Result<LoraPair> {
        let &AdaptedLinear { rank, in_features, out_features, .. } = layer;
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for stored in layer.stored() {
            a.extend(self.values(&stored.a_name(), &[rank, in_features])?);
            b.extend(self.values(&stored.b_name(), &[out_features, rank])?);
        }
        let magnitude =
            layer.dora.then(|| self.values(&layer.magnitude_name(), &[out_features])).transpose()?;
        Ok(LoraPair { rank, in_features, out_features, a, b, magnitude })
    }

    fn values(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let name = key(name);
        let values = self.file.read_f32(&name, shape).map_err(|error| {
            error.hint("the adapter belongs to another base model, or its rank was changed by hand")
        })?;
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            return Err(Error::data(format!("{name} holds {value}")));
        }
        self.met.insert(name);
        Ok(values)
    }

    fn refuse_rest(&self, layers: &[AdaptedLinear], model: &[TensorSpec]) -> Result<()> {
        let extra = self.file.entries().iter().find(|(name, entry)| {
            !self.met.contains(*name)
                && !is_base_copy(name, &entry.shape, layers)
                && !grown::is_table_copy(name, &entry.shape, model)
        });
        let Some((name, _)) = extra else { return Ok(()) };
        Err(Error::data(format!("{} has the unexpected tensor {name}", self.file.path().display())).hint(
            "the adapter trains something that its adapter_config.json does not say, or belongs to another base model",
        ))
    }
}
