//! What an adapter trains in a model, and with which values it starts.

use std::collections::BTreeMap;
use std::path::Path;

use super::model::OpenModel;
use super::{NamedTensors, new_tokens};
use crate::adapter::{
    Adaptation, AdaptedLinear, AdapterSpec, LoraPair, TargetModules, init, peft, token_rows_name,
};
use crate::config::{self, AdapterSection, RunConfig};
use crate::error::{Error, Result};
use crate::executor::HostTensor;
use crate::model::{ModelConfig, Trained};

/// The configuration's adapter with what it trains in `model`; an existing one is described by its own file.
///
/// # Errors
/// A user error if the rules do not fit the model or contradict the adapter to continue from, a data error if that
/// cannot be read.
pub fn described(section: &AdapterSection, model: &OpenModel) -> Result<(AdapterSpec, Adaptation)> {
    let config = &model.source.config;
    let mut spec = match &section.init {
        Some(folder) => continued(section, folder, config)?,
        None => from_section(section),
    };
    let mut adaptation = spec.adaptation(&config.adaptable_modules(), &config.trainable_specs())?;
    if !model.added_ids.is_empty() {
        new_tokens::train_rows(&mut spec, &adaptation, model, section.init.is_some())?;
        adaptation = spec.adaptation(&config.adaptable_modules(), &config.trainable_specs())?;
    }
    Ok((spec, adaptation))
}

/// The configuration's adapter at the start of a run: a fresh one that changes nothing, or an existing one.
///
/// # Errors
/// As [`described`]; a data error if a weight cannot be read.
pub(super) fn starting(
    config: &RunConfig,
    model: &OpenModel,
) -> Result<(AdapterSpec, Adaptation, NamedTensors)> {
    let (spec, adaptation) = described(&config.adapter, model)?;
    if let Some(folder) = &config.adapter.init {
        let (_, values) = existing(folder, model)?;
        return Ok((spec, adaptation, values));
    }
    let mut values = NamedTensors::new();
    for module in adaptation.pairs.values() {
        let mut pair = LoraPair::initial(config.train.seed, module);
        if module.dora {
            let weight = model.weight(&format!("{}.weight", module.path), &module.weight_dims())?;
            pair.magnitude = Some(init::initial_magnitude(&weight, module.kind, module.out_features));
        }
        insert(&mut values, module, pair)?;
    }
    for (name, shape) in &adaptation.saved {
        values.insert(name.clone(), HostTensor::f32(shape, model.weight(name, shape)?)?);
    }
    for (table, rows) in &adaptation.tokens {
        let values_of_rows = new_tokens::rows_of(model, table, rows)?;
        values
            .insert(token_rows_name(table), HostTensor::f32(&[rows.ids.len(), rows.width], values_of_rows)?);
    }
    Ok((spec, adaptation, values))
}

/// The adapter in `folder`: what it trains, and its values as states.
///
/// # Errors
/// A data error if the adapter is damaged or does not fit the model.
pub(super) fn existing(folder: &Path, model: &OpenModel) -> Result<(Adaptation, NamedTensors)> {
    let config = &model.source.config;
    let mut adapter = peft::read(folder, &config.adaptable_modules(), &config.trainable_specs())?;
    let adaptation = adapter.adaptation();
    let mut values = NamedTensors::new();
    for layer in &adapter.layers {
        if let Some(pair) = adapter.weights.pairs.remove(&layer.path) {
            insert(&mut values, layer, pair)?;
        }
    }
    for (name, saved) in adapter.weights.saved {
        values.insert(name, HostTensor::f32(&saved.shape, saved.values)?);
    }
    Ok((adaptation, values))
}

/// What the user should know where training takes a tied head and its token table apart.
pub(super) fn untied(trained: &Trained, model: &OpenModel) -> Option<String> {
    let Trained::Adapters(adaptation) = trained else { return None };
    let apart = model.source.config.tie_word_embeddings && adaptation.unties();
    apart.then(|| {
        "the model's output head is its token table: the adapter changes one of them alone, as PEFT does"
            .to_owned()
    })
}

fn insert(values: &mut NamedTensors, module: &AdaptedLinear, pair: LoraPair) -> Result<()> {
    values.insert(module.a_name(), HostTensor::f32(&module.a_dims(), pair.a)?);
    values.insert(module.b_name(), HostTensor::f32(&module.b_dims(), pair.b)?);
    if let Some(magnitude) = pair.magnitude {
        values.insert(module.magnitude_name(), HostTensor::f32(&[pair.out_features], magnitude)?);
    }
    Ok(())
}

fn from_section(section: &AdapterSection) -> AdapterSpec {
    AdapterSpec {
        r: section.r,
        alpha: section.alpha,
        dropout: section.dropout,
        use_rslora: section.use_rslora,
        use_dora: section.use_dora,
        target_modules: match &section.target_modules {
            config::TargetModules::AllLinear => TargetModules::AllLinear,
            config::TargetModules::List(names) => TargetModules::List(names.clone()),
            config::TargetModules::Regex(pattern) => TargetModules::Regex(pattern.clone()),
        },
        layers_to_transform: section.layers_to_transform.clone(),
        rank_pattern: section.rank_pattern.clone(),
        alpha_pattern: section.alpha_pattern.clone(),
        modules_to_save: section.modules_to_save.clone(),
        trainable_token_indices: BTreeMap::new(),
    }
}

/// The adapter in `folder` as its own file describes it, with the section's dropout where there is one.
///
/// A key beside `init` may be put otherwise than in the file ("all-linear" for a list of all names), but must come to the
/// same.
fn continued(section: &AdapterSection, folder: &Path, model: &ModelConfig) -> Result<AdapterSpec> {
    let mut spec = peft::read_config(folder)?.spec;
    let wanted = from_section(section);
    let (modules, weights) = (model.adaptable_modules(), model.trainable_specs());
    let meant = spec.adaptation(&modules, &weights)?;
    for key in section.given.iter().filter(|&&key| key != "dropout") {
        let mut changed = spec.clone();
        take(&mut changed, &wanted, key);
        if changed.adaptation(&modules, &weights).ok().as_ref() != Some(&meant) {
            return Err(Error::user(format!(
                "adapter.{key} contradicts the adapter in {}",
                folder.display()
            ))
            .hint(format!(
                "its adapter_config.json says otherwise: remove {key}, which then comes from there"
            )));
        }
    }
    if section.given.contains(&"dropout") {
        spec.dropout = section.dropout;
    }
    Ok(spec)
}

/// Copies what a key of the configuration says.
fn take(spec: &mut AdapterSpec, from: &AdapterSpec, key: &str) {
    let from = from.clone();
    match key {
        "r" => spec.r = from.r,
        "alpha" => spec.alpha = from.alpha,
        "use_rslora" => spec.use_rslora = from.use_rslora,
        "use_dora" => spec.use_dora = from.use_dora,
        "target_modules" => spec.target_modules = from.target_modules,
        "layers_to_transform" => spec.layers_to_transform = from.layers_to_transform,
        "rank_pattern" => spec.rank_pattern = from.rank_pattern,
        "alpha_pattern" => spec.alpha_pattern = from.alpha_pattern,
        "modules_to_save" => spec.modules_to_save = from.modules_to_save,
        _ => {}
    }
}
