//! Cross-checks: paths that must exist, and keys that contradict each other. One file per section that has any.

mod adapter;
mod data;
mod model;
mod paths;
mod streaming;
mod train;

use super::RunConfig;
use super::document::Document;
use super::report::{Problem, Problems};
use super::sections::RawConfig;
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// What every check needs: where keys stand, where relative paths start, and where problems go.
struct Resolver<'d> {
    document: &'d Document<'d>,
    problems: &'d mut Problems,
    config_folder: PathBuf,
    current_folder: PathBuf,
}

/// Checks the raw configuration read from `file`. With problems reported, the result stands for nothing.
pub(super) fn resolve(
    raw: RawConfig,
    file: &Path,
    document: &Document<'_>,
    problems: &mut Problems,
) -> Result<RunConfig> {
    let absolute =
        std::path::absolute(file).map_err(|error| Error::user(format!("{}: {error}", file.display())))?;
    let current_folder =
        std::env::current_dir().map_err(|error| Error::user(format!("the current folder: {error}")))?;
    let stem = absolute.file_stem().unwrap_or_default().to_owned();
    let config_folder = absolute.parent().unwrap_or(&current_folder).to_owned();
    let mut resolver = Resolver { document, problems, config_folder, current_folder };
    let default_output = resolver.current_folder.join("runs").join(stem);
    resolver.streaming(&raw.data, &raw.train);
    let model = resolver.model(raw.model, raw.adapter.method);
    let data = resolver.data(raw.data);
    let adapter = resolver.adapter(raw.adapter);
    let train = resolver.train(raw.train, &data.validation, &default_output);
    resolver.schedule(&raw.schedule, &raw.optimizer, train.length);
    Ok(RunConfig {
        model,
        data,
        adapter,
        optimizer: raw.optimizer,
        schedule: raw.schedule,
        train,
        log: raw.log,
    })
}

impl Resolver<'_> {
    /// A problem at a key's value.
    fn problem(&self, section: &str, key: &str, title: impl Into<String>) -> Problem {
        Problem::new(self.document.value(section, key), title)
    }

    fn report(&mut self, problem: Problem) {
        self.problems.push(problem);
    }
}
