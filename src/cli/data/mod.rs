//! `lazytune data`

mod progress;
mod row;
mod summary;

use super::arguments::DataArguments;
use super::check::beside_a_damaged_model;
use super::printer::Printer;
use super::progress::downloads;
use crate::config;
use crate::data::preview::{PreviewedRow, Stretch, stretches};
use crate::data::report::{DataReport, measure};
use crate::data::{ChatTokenizer, ReadingProgress};
use crate::error::{Error, Result};
use crate::train::hub_data::local_data;
use crate::train::model::OpenModel;
use crate::train::setup::open_tokenizer;
use progress::Reading;
use row::RowText;
use serde::Serialize;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use summary::Summary;

pub fn run(arguments: &DataArguments, printer: &Printer) -> Result<()> {
    let file = &arguments.config;
    let config = config::load_with_color(&file.path, &file.overrides, printer.colored())?;
    let tokenizer = tokenizer(&config, printer)?;
    let section = local_data(&config, Some(&downloads(printer)))?;
    let here = std::env::current_dir().unwrap_or_default();
    let color = !arguments.plain && printer.data_colored();
    // Shared by the two callbacks below, which never run at the same time.
    let reading = RefCell::new(Reading::new(printer));
    let mut rows = Vec::new();
    let mut preview = |row: PreviewedRow| {
        let row = ShownRow::new(row, tokenizer.as_ref(), &here);
        if arguments.json {
            rows.push(row);
        } else {
            reading.borrow().suspend(|| printer.data(&RowText { row: &row, color }.to_string()));
        }
        Ok(())
    };
    let mut progress = |done: ReadingProgress| reading.borrow_mut().update(done);
    let measured =
        measure(&section, tokenizer.as_ref(), config.train.seed, arguments.rows, &mut preview, &mut progress);
    reading.borrow().clear();
    let report = measured?;
    let summary = Summary { report: &report, section: &section, color, plain: arguments.plain };
    if arguments.json {
        let json = serde_json::json!({ "report": summary.json()?, "rows": rows });
        let text = serde_json::to_string_pretty(&json).map_err(|error| Error::internal(error.to_string()))?;
        printer.data(&text);
    } else {
        printer.data(summary.to_string().trim_end());
        report.bad_rows.iter().for_each(|row| printer.error(&row.error));
    }
    refusal(&report)
}

/// An error where rows cannot be used.
fn refusal(report: &DataReport) -> Result<()> {
    let (bad, named) = (report.bad, report.bad_rows.len());
    let files: BTreeSet<&Path> = report.bad_rows.iter().map(|row| row.file.as_path()).collect();
    let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    let message = match (bad, named) {
        (0, _) => return Ok(()),
        (1, _) => format!("1 row cannot be used, in {}", files.join(", ")),
        (bad, named) if bad == named => format!("{bad} rows cannot be used, in {}", files.join(", ")),
        (bad, named) => format!("{bad} rows cannot be used; the first {named} are in {}", files.join(", ")),
    };
    Err(Error::data(message).hint("mend or remove them: training refuses the first of them"))
}

/// The model's tokenizer; a model whose weights are damaged may still have one.
fn tokenizer(config: &config::RunConfig, printer: &Printer) -> Result<Option<ChatTokenizer>> {
    match OpenModel::open(config, Some(downloads(printer))) {
        Ok(model) => open_tokenizer(config, &model),
        Err(error) => beside_a_damaged_model(config).map(Some).ok_or(error),
    }
}

/// A row as it is printed.
#[derive(Debug, Serialize)]
struct ShownRow {
    /// `file:line`, relative to the current folder where the file lies in it.
    place: String,
    kind: &'static str,
    remarks: Vec<&'static str>,
    examples: Vec<Vec<Stretch>>,
}

impl ShownRow {
    fn new(row: PreviewedRow, tokenizer: Option<&ChatTokenizer>, here: &Path) -> Self {
        let place = row.source.to_string();
        let inside = Path::new(&place).strip_prefix(here).map(|path| path.display().to_string());
        Self {
            place: inside.unwrap_or(place),
            kind: row.kind.name(),
            remarks: row.remarks,
            examples: row.examples.iter().map(|example| stretches(example, tokenizer)).collect(),
        }
    }
}
