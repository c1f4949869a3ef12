//! `lazytune check`

use super::arguments::CheckArguments;
use super::printer::Printer;
use super::progress::{counter, downloads};
use crate::config::{self, DataSection, ModelLocation, RunConfig};
use crate::data::report::measure;
use crate::data::{ChatTokenizer, Splits};
use crate::error::{Error, Result};
use crate::train::adapter;
use crate::train::hub_data::local_data;
use crate::train::model::OpenModel;
use crate::train::setup::open_tokenizer;

/// Checks everything that can be checked without training, and goes on after a problem to find the others.
pub fn run(arguments: &CheckArguments, printer: &Printer) -> Result<()> {
    let file = &arguments.config;
    let config = config::load_with_color(&file.path, &file.overrides, printer.colored())?;
    printer.data(&format!("configuration  {} is valid", file.path.display()));
    let mut problems = Vec::new();
    let model = kept(OpenModel::open(&config, Some(downloads(printer))), &mut problems);
    let mut tokenizer: Option<ChatTokenizer> = None;
    if let Some(model) = &model {
        printer.data(&format!("model          {} parameters, {}", model.parameters(), model.name));
        if config.adapter.method == config::Method::Lora {
            let described = adapter::described(&config.adapter, model);
            if let Some((_, adaptation)) = kept(described, &mut problems) {
                let (layers, count) = (adaptation.pairs.len(), adaptation.parameters());
                printer.data(&format!("adapter        {layers} layers, {count} parameters"));
                if let Some(folder) = &config.adapter.init {
                    kept(model.adapter(folder), &mut problems);
                }
            }
        }
        tokenizer = kept(open_tokenizer(&config, model), &mut problems).flatten();
    }
    if model.is_none() {
        tokenizer = beside_a_damaged_model(&config);
    }
    if model.is_some() || tokenizer.is_some() {
        data(&config, model.as_ref(), tokenizer.as_ref(), &mut problems, printer);
    } else {
        printer.data("data           not checked: turning rows into tokens needs the model's tokenizer");
    }
    conclude(problems, printer)
}

/// A folder's tokenizer may be whole where its weights are not.
pub fn beside_a_damaged_model(config: &RunConfig) -> Option<ChatTokenizer> {
    match &config.model.path {
        ModelLocation::Folder(folder) => ChatTokenizer::from_folder(folder).ok(),
        ModelLocation::Gguf(_) | ModelLocation::Hub(_) => None,
    }
}

/// Reads and tokenizes all rows.
fn data(
    config: &RunConfig,
    model: Option<&OpenModel>,
    tokenizer: Option<&ChatTokenizer>,
    problems: &mut Vec<Error>,
    printer: &Printer,
) {
    let local = local_data(config, Some(&downloads(printer)));
    let Some(section) = kept(local, problems) else { return };
    if section.streaming {
        streamed_data(&section, tokenizer, problems, printer);
        return;
    }
    let (bar, mut counted) = counter(printer, "tokenizing", "rows");
    let splits = kept(Splits::load(&section, tokenizer, &mut counted), problems);
    bar.finish_and_clear();
    let Some(Splits { train, validation }) = splits else { return };
    for (name, data) in [("training", Some(&train)), ("validation", validation.as_ref())] {
        let Some(data) = data else { continue };
        let (rows, tokens, supervised) = (data.len(), data.tokens(), data.supervised_tokens());
        printer.data(&format!("{name:<14} {rows} rows, {tokens} tokens, {supervised} of them supervised"));
        if let Some(model) = model {
            kept(data.check_vocabulary(model.source.config.vocab_size), problems);
        }
    }
}

/// Reads and tokenizes all rows, and keeps none.
fn streamed_data(
    section: &DataSection,
    tokenizer: Option<&ChatTokenizer>,
    problems: &mut Vec<Error>,
    printer: &Printer,
) {
    let Some(report) = kept(measure(section, tokenizer, 0, 0, &mut |_| Ok(()), &mut |_| {}), problems) else {
        return;
    };
    for (name, part) in [("training", Some(&report.train)), ("validation", report.validation.as_ref())] {
        let Some(part) = part else { continue };
        let (rows, tokens, supervised) = (part.examples, part.tokens, part.supervised_tokens);
        printer.data(&format!("{name:<14} {rows} rows, {tokens} tokens, {supervised} of them supervised"));
    }
    problems.extend(report.bad_rows.into_iter().map(|row| row.error));
    if report.train.supervised_tokens == 0 {
        problems.push(Error::data("nothing to train on").hint("`lazytune data` shows why"));
    }
}

/// Every problem is printed; the last one decides the exit code.
fn conclude(mut problems: Vec<Error>, printer: &Printer) -> Result<()> {
    let Some(last) = problems.pop() else {
        printer.data("all good");
        return Ok(());
    };
    let count = problems.len() + 1;
    problems.iter().for_each(|problem| printer.error(problem));
    if count > 1 { Err(last.context(format!("{count} problems, the last"))) } else { Err(last) }
}

fn kept<T>(result: Result<T>, problems: &mut Vec<Error>) -> Option<T> {
    result.map_err(|problem| problems.push(problem)).ok()
}
