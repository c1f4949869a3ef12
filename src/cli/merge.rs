//! `lazytune merge`

use super::arguments::MergeArguments;
use super::printer::Printer;
use super::progress::downloads;
use crate::adapter::{merge::merge_into, peft};
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
    let adapter = peft::read(&arguments.adapter, &source.config.linear_modules())?;
    printer.note(&format!("merging {} layers into {}", adapter.layers.len(), model.name));
    atomic::write_directory(&arguments.out, |folder| {
        export::export(source, folder, None, |spec, buffer| {
            source.weights.read_into(&spec.name, &spec.shape, buffer)?;
            let layer =
                adapter.layers.iter().find(|layer| spec.name.strip_suffix(".weight") == Some(&layer.path));
            if let Some(layer) = layer
                && let Some(pair) = adapter.weights.get(&layer.path)
            {
                merge_into(buffer, pair, layer.scale);
            }
            Ok(())
        })
    })?;
    printer.data(&arguments.out.display().to_string());
    Ok(())
}
