//! `lazytune merge`

use super::arguments::MergeArguments;
use super::printer::Printer;
use super::progress::downloads;
use crate::adapter::merge::merge_into;
use crate::adapter::peft::{self, Adapter};
use crate::adapter::token_rows_name;
use crate::checkpoint::atomic;
use crate::error::{Error, Result};
use crate::model::export;
use crate::train::model::OpenModel;

pub fn run(arguments: &MergeArguments, printer: &Printer) -> Result<()> {
    if arguments.out.exists() {
        let message = format!("{} exists already", arguments.out.display());
        return Err(Error::user(message).hint("choose another --out, or remove the folder first"));
    }
    let model =
        OpenModel::named(&arguments.model, Some(downloads(printer)))?.with_tokens_of(&arguments.adapter)?;
    let source = &model.source;
    let specs = source.config.trainable_specs();
    let adapter = peft::read(&arguments.adapter, &source.config.adaptable_modules(), &specs)?;
    let unties = source.config.tie_word_embeddings && adapter.adaptation().unties();
    let config = if unties { source.config.untied() } else { source.config.clone() };
    printer.note(&format!("merging {} layers into {}", adapter.layers.len(), model.name));
    if unties {
        printer.note(
            "the output head was the token table, and gets a table of its own: only one of them is adapted",
        );
    }
    atomic::write_directory(&arguments.out, |folder| {
        export::export_as(source, &config, folder, None, |spec, buffer| {
            source.weights.read_into(model.stored_name(&spec.name), &spec.shape, buffer)?;
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
    if let Some(rows) = adapter.tokens.get(name)
        && let Some(trained) = adapter.weights.saved.get(&token_rows_name(name))
    {
        for (&id, row) in rows.ids.iter().zip(trained.values.chunks_exact(rows.width)) {
            values[id * rows.width..][..rows.width].copy_from_slice(row);
        }
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
