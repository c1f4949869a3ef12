//! Which files of a model are downloaded, and what the hub's answers mean.

use std::path::{Path, PathBuf};

use hf_hub::progress::{DownloadEvent, Progress, ProgressEvent, ProgressHandler};
use hf_hub::repository::RepoTypeModel;
use hf_hub::{HFClient, HFError, HFRepositorySync, split_id};

use super::{DownloadProgress, HubOptions};
use crate::error::{Error, Result};
use crate::model::shards::shard_names;

/// Files that not every model has.
const OPTIONAL: [&str; 6] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
];

/// Tries for a file whose download breaks off.
const ATTEMPTS: usize = 3;

pub(super) fn resolve(name: &str, options: &HubOptions) -> Result<PathBuf> {
    let mut model = Download::new(name, options)?;
    let config = model.require("config.json")?;
    let folder = config.parent().map(Path::to_path_buf).unwrap_or_default();
    // The folder is named after the commit: the other files come from the same one, even if the branch moves on.
    if let Some(commit) = folder.file_name().and_then(|commit| commit.to_str()) {
        model.revision = commit.to_owned();
    }
    for file in OPTIONAL {
        model.fetch(file)?;
    }
    if model.fetch("model.safetensors")?.is_none() {
        let index = model.fetch("model.safetensors.index.json")?.ok_or_else(|| {
            Error::data(format!("{name} has no model.safetensors"))
                .hint("only models with safetensors weights can be used; for a GGUF file, download it and give its path")
        })?;
        for shard in shard_names(&index)? {
            model.require(&shard)?;
        }
    }
    Ok(folder)
}

struct Download<'a> {
    name: &'a str,
    repository: HFRepositorySync<RepoTypeModel>,
    revision: String,
    offline: bool,
    progress: Option<Progress>,
}

impl<'a> Download<'a> {
    fn new(name: &'a str, options: &HubOptions) -> Result<Self> {
        let mut builder = HFClient::builder();
        if let Some(token) = &options.token {
            builder = builder.token(token);
        }
        if let Some(cache) = &options.cache {
            builder = builder.cache_dir(cache);
        }
        if let Some(endpoint) = &options.endpoint {
            builder = builder.endpoint(endpoint);
        }
        let client = builder
            .build_sync()
            .map_err(|error| Error::device(format!("cannot start the hub client: {error}")))?;
        let (owner, model) = split_id(name);
        Ok(Self {
            name,
            repository: client.model(owner, model),
            revision: options.revision.clone(),
            offline: options.offline || offline_by_environment(),
            progress: options.progress.clone().map(|report| Progress::new(Report(report))),
        })
    }

    /// The path of a file in the cache; `None` if the model has no such file.
    fn fetch(&self, file: &str) -> Result<Option<PathBuf>> {
        let mut attempt = 1;
        loop {
            let answer = self
                .repository
                .download_file()
                .filename(file)
                .revision(&self.revision)
                .local_files_only(self.offline)
                .maybe_progress(self.progress.clone())
                .send();
            match answer {
                Ok(path) => return Ok(Some(path)),
                Err(HFError::EntryNotFound { .. }) => return Ok(None),
                // Offline, a file that was never seen is taken as absent; what is needed is asked for by `require`.
                Err(HFError::LocalEntryNotFound { .. }) if self.offline => return Ok(None),
                Err(HFError::Request { .. }) if attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(self.explain(file, &error)),
            }
        }
    }

    fn require(&self, file: &str) -> Result<PathBuf> {
        let Self { name, revision, .. } = self;
        self.fetch(file)?.ok_or_else(|| {
            if self.offline {
                Error::data(format!("{name} ({revision}): {file} is not in the cache, and downloads are off"))
                    .hint("run once without offline = true and HF_HUB_OFFLINE, or give a local folder")
            } else {
                Error::data(format!("{name} ({revision}) has no file {file}")).hint(
                    "check the model's name and revision; a private or gated model needs a token (HF_TOKEN)",
                )
            }
        })
    }

    fn explain(&self, file: &str, error: &HFError) -> Error {
        let Self { name, revision, .. } = self;
        let hint = match error {
            HFError::AuthRequired { .. } | HFError::Forbidden { .. } => {
                "the model is private, gated or misspelt: accept its terms on the hub and set HF_TOKEN to your token"
            }
            HFError::RepoNotFound { .. } => {
                "check the model's name; a private model needs a token (HF_TOKEN)"
            }
            HFError::RevisionNotFound { .. } => "check model.revision: a branch, a tag or a commit",
            HFError::RateLimited { .. } => "the hub limits how often it is asked: wait, or set HF_TOKEN",
            _ => "check the network; a model that is in the cache can be used with HF_HUB_OFFLINE=1",
        };
        Error::data(format!("cannot download {file} of {name} ({revision}): {error}")).hint(hint)
    }
}

fn offline_by_environment() -> bool {
    let value = std::env::var("HF_HUB_OFFLINE").unwrap_or_default();
    ["1", "true", "yes", "on"].contains(&value.to_lowercase().as_str())
}

struct Report(DownloadProgress);

impl ProgressHandler for Report {
    fn on_progress(&self, event: &ProgressEvent) {
        if let ProgressEvent::Download(DownloadEvent::Progress { files }) = event {
            for file in files {
                (self.0)(&file.filename, file.bytes_completed, file.total_bytes);
            }
        }
    }
}
