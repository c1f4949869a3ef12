//! `lazytune merge`

use super::arguments::MergeArguments;
use super::printer::Printer;
use super::progress::downloads;
use crate::adapter::merge::merge_into;
use crate::adapter::peft::{self, Adapter};
use crate::checkpoint::atomic;
use crate::error::{Error, Result};
use crate::model::export;
use crate::train::model::OpenModel;

pub fn run(arguments: &MergeArguments, printer: &Printer) -> Result<()> {
    if arguments.out.exists() {
        let message = format!("{} exists already", arguments.out.display());
        return Err(Error::user(message).hint("choose another --out, or remove the folder first"));
    }
    let model = OpenModel::named(&arguments.model, Some(downloads(printer)))?;
    let source = &model.source;
    let config = &source.config;
    let adapter = peft::read(&arguments.adapter, &config.adaptable_modules(), &config.trainable_specs())?;
    if config.tie_word_embeddings {
        refuse_untied(&adapter)?;
    }
    printer.note(&format!("merging {} layers into {}", adapter.layers.len(), model.name));
    atomic::write_directory(&arguments.out, |folder| {
        export::export(source, folder, None, |spec, buffer| {
            source.weights.read_into(&spec.name, &spec.shape, buffer)?;
            merge_tensor(&adapter, &spec.name, buffer);
            Ok(())
        })
    })?;
    printer.data(&arguments.out.display().to_string());
    Ok(())
}

/// Turns a weight of the base model into the adapted one.
fn merge_tensor(adapter: &Adapter, name: &str, values: &mut [f32]) {
    if let Some(saved) = adapter.weights.saved.get(name) {
        values.copy_from_slice(&saved.values);
    }
    let Some(path) = name.strip_suffix(".weight") else { return };
    for layer in &adapter.layers {
        let Some(pair) = adapter.weights.pairs.get(&layer.path) else { continue };
        if layer.path == path {
            merge_into(values, layer, pair);
        } else if let Some(expert) = layer.expert_at(path) {
            merge_into(values, layer, &pair.of_expert(expert));
        }
    }
}

/// One tensor cannot be both the token table and a head that differs from it.
fn refuse_untied(adapter: &Adapter) -> Result<()> {
    let paths = adapter.layers.iter().map(|layer| layer.path.as_str());
    let saved = adapter.weights.saved.keys().filter_map(|name| name.strip_suffix(".weight"));
    match paths.chain(saved).find(|path| matches!(*path, "lm_head" | "model.embed_tokens")) {
        None => Ok(()),
        Some(path) => Err(Error::user(format!(
            "the adapter changes {path} alone, and the model's head is its token table: they cannot be merged into one"
        ))
        .hint("use the adapter as it is, or merge it with PEFT, which unties the model")),
    }
}
