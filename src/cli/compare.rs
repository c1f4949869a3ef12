//! `lazytune compare`: two runs over each other.

use std::path::Path;

use super::arguments::CompareArguments;
use super::dashboard;
use super::printer::Printer;
use super::runs::{RunSummary, table};
use crate::error::Result;
use crate::metrics::MetricsFile;
use crate::tui::{Comparison, Recording, Run};

pub fn run(arguments: &CompareArguments, printer: &Printer) -> Result<()> {
    let [first, second] = [&arguments.first, &arguments.second];
    let (one, other) = (read(first)?, read(second)?);
    if arguments.plain || !printer.interactive() {
        let runs = [RunSummary::read(first)?, RunSummary::read(second)?];
        table(&runs).iter().for_each(|line| printer.data(line));
        return Ok(());
    }
    dashboard::require_terminal(printer)?;
    let named = |path: &Path, run| (path.display().to_string(), run);
    let mut comparison = Comparison::new(named(first, one), named(second, other));
    dashboard::view(&mut comparison, &mut |_| {})
}

fn read(run_dir: &Path) -> Result<Run> {
    Ok(Recording::read(&mut MetricsFile::open(run_dir)?)?.run())
}
