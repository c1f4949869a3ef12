//! Data sets on the hub as files on disk.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::config::{DataSection, HubFiles, RunConfig, Validation};
use crate::error::{Error, Result, ResultExt};
use crate::model::hub::{self, DownloadProgress, HubOptions};

/// The configuration's data with every name of the hub replaced by files in its cache, downloaded where they are not
/// there yet. Token, cache and `offline` are those of `[model]`.
///
/// # Errors
/// The hub refuses, does not answer, or has no such files.
pub fn local_data(config: &RunConfig, progress: Option<&DownloadProgress>) -> Result<DataSection> {
    let mut brought = Brought { config, progress, files: HashMap::new() };
    let mut data = config.data.clone();
    data.train = brought.local(data.train)?;
    for source in &mut data.sources {
        source.files = brought.local(std::mem::take(&mut source.files))?;
    }
    if let Validation::Files(files) = &mut data.validation {
        *files = brought.local(std::mem::take(files))?;
    }
    Ok(data)
}

struct Brought<'a> {
    config: &'a RunConfig,
    progress: Option<&'a DownloadProgress>,
    /// What each name of the hub stands for.
    files: HashMap<PathBuf, Vec<PathBuf>>,
}

impl Brought<'_> {
    fn local(&mut self, files: Vec<PathBuf>) -> Result<Vec<PathBuf>> {
        let mut local = Vec::with_capacity(files.len());
        for file in files {
            match file.to_str().filter(|text| text.starts_with(HubFiles::PREFIX)) {
                None => local.push(file),
                Some(name) if !self.files.contains_key(&file) => {
                    let found = self.bring(name).context(|| format!("while fetching {name}"))?;
                    local.extend(found.iter().cloned());
                    self.files.insert(file, found);
                }
                Some(_) => local.extend(self.files[&file].iter().cloned()),
            }
        }
        Ok(local)
    }

    fn bring(&self, name: &str) -> Result<Vec<PathBuf>> {
        let HubFiles { repository, revision, pattern } = HubFiles::parse(name).map_err(Error::user)?;
        let section = &self.config.model;
        let options = HubOptions {
            revision,
            token: std::env::var(&section.token_env).ok(),
            cache: section.cache_dir.clone(),
            offline: section.offline,
            progress: self.progress.cloned(),
            ..HubOptions::default()
        };
        hub::resolve_dataset(&repository, &pattern, &options)
    }
}
