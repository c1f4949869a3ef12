//! A checked configuration back to TOML.

use super::sections::{
    KNOWN_TO_INIT, ModelLocation, RawConfig, RawData, RawModel, RawSource, RawTrain, TextOrList, Validation,
};
use super::{ModelSection, RunConfig, RunLength, TrainSection};
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

impl RunConfig {
    /// The resolved configuration as TOML: every key that has a value, paths absolute. Loading it gives an equal
    /// `RunConfig`.
    ///
    /// # Errors
    /// A user error for a path that is not UTF-8, which TOML cannot hold.
    pub fn to_toml(&self) -> Result<String> {
        let raw = RawConfig {
            model: raw_model(&self.model)?,
            data: self.raw_data()?,
            adapter: self.adapter.clone(),
            optimizer: self.optimizer.clone(),
            schedule: self.schedule.clone(),
            train: raw_train(&self.train),
            log: self.log.clone(),
        };
        let failed = |error: toml::ser::Error| {
            Error::user(format!("the configuration cannot be written as TOML: {error}"))
        };
        if self.adapter.init.is_none() {
            return toml::to_string_pretty(&raw).map_err(failed);
        }
        // A default beside `init` would read as a wish.
        let mut table = toml::Table::try_from(&raw).map_err(failed)?;
        if let Some(toml::Value::Table(adapter)) = table.get_mut("adapter") {
            let given = |key: &str| self.adapter.given.contains(&key);
            adapter.retain(|key, _| !KNOWN_TO_INIT.contains(&key) || given(key));
        }
        toml::to_string_pretty(&table).map_err(failed)
    }

    fn raw_data(&self) -> Result<RawData> {
        let data = &self.data;
        let validation = match &data.validation {
            Validation::None => TextOrList::Text("none".to_owned()),
            Validation::Auto => TextOrList::Text("auto".to_owned()),
            Validation::Files(files) => TextOrList::List(texts(files)?),
        };
        let weighted = data.sources.iter().map(|source| -> Result<RawSource> {
            Ok(RawSource { path: TextOrList::List(texts(&source.files)?), weight: source.weight })
        });
        let sources: Vec<RawSource> = weighted.collect::<Result<_>>()?;
        let train = TextOrList::List(texts(&data.train)?);
        Ok(RawData {
            train: sources.is_empty().then_some(train),
            sources,
            validation,
            validation_fraction: data.validation_fraction,
            max_length: data.max_length,
            shuffle: data.shuffle,
            streaming: data.streaming,
            shuffle_buffer: data.shuffle_buffer,
            max_validation_rows: data.max_validation_rows,
            packing: data.packing,
            train_on: data.train_on,
            overlong: data.overlong,
            deduplicate: data.deduplicate,
            cache: data.cache,
            cache_dir: data.cache_dir.clone(),
            chat_template: data.chat_template.clone(),
        })
    }
}

fn raw_model(model: &ModelSection) -> Result<RawModel> {
    let path = match &model.path {
        ModelLocation::Folder(path) | ModelLocation::Gguf(path) => text(path)?,
        ModelLocation::Hub(name) => name.clone(),
    };
    Ok(RawModel {
        path: Some(path),
        revision: model.revision.clone(),
        token_env: model.token_env.clone(),
        offline: model.offline,
        cache_dir: model.cache_dir.clone(),
        dtype: model.dtype,
        device: model.device,
        init: model.init,
        threads: model.threads,
        memory_budget: model.memory_budget.map(super::sections::ByteSize),
        add_tokens: model.add_tokens.clone(),
        add_special_tokens: model.add_special_tokens.clone(),
    })
}

fn raw_train(train: &TrainSection) -> RawTrain {
    let (epochs, max_steps) = match train.length {
        RunLength::Epochs(epochs) => (Some(epochs), None),
        RunLength::Steps(steps) => (None, Some(steps)),
    };
    RawTrain {
        batch_size: train.batch_size,
        gradient_accumulation_steps: train.gradient_accumulation_steps,
        epochs,
        max_steps,
        seed: train.seed,
        eval_steps: train.eval_steps,
        save_steps: train.save_steps,
        save_total_limit: train.save_total_limit,
        output_dir: Some(train.output_dir.clone()),
        early_stopping_patience: train.early_stopping_patience,
        sample_prompts: train.sample_prompts.clone(),
        sample_max_tokens: train.sample_max_tokens,
        frozen_prefix_cache: train.frozen_prefix_cache.map(super::sections::SizeOrOff),
        frozen_prefix_cache_dir: train.frozen_prefix_cache_dir.clone(),
    }
}

fn texts(paths: &[PathBuf]) -> Result<Vec<String>> {
    paths.iter().map(|path| text(path)).collect()
}

fn text(path: &Path) -> Result<String> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| Error::user(format!("{} is not UTF-8: TOML cannot hold this path", path.display())))
}
