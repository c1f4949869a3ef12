//! Which files of a model or data set are downloaded, and what the hub's answers mean.

use std::path::{Component, Path, PathBuf};

use hf_hub::progress::{DownloadEvent, Progress, ProgressEvent, ProgressHandler};
use hf_hub::repository::{RepoTreeEntry, RepoType, RepoTypeDataset, RepoTypeModel};
use hf_hub::{HFClient, HFClientSync, HFError, HFRepositorySync, split_id};
use reqwest::Url;

use super::transfer::Transfer;
use super::{DownloadProgress, HubOptions};
use crate::error::{Error, Result, ResultExt};
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

/// Tries for a small file whose download breaks off.
const ATTEMPTS: usize = 3;

pub(super) fn resolve(name: &str, options: &HubOptions) -> Result<PathBuf> {
    let mut model = Download::<RepoTypeModel>::new(name, options, "model")?;
    let config = model.require("config.json")?;
    let folder = config.parent().map(Path::to_path_buf).unwrap_or_default();
    // The folder is named after the commit: the other files come from the same one, even if the branch moves on.
    model.stay_at(&folder);
    for file in OPTIONAL {
        model.fetch(file)?;
    }
    if model.fetch_large("model.safetensors")?.is_none() {
        let index = model.fetch("model.safetensors.index.json")?.ok_or_else(|| {
            Error::data(format!("{name} has no model.safetensors"))
                .hint("only models with safetensors weights can be used; for a GGUF file, download it and give its path")
        })?;
        for shard in shard_names(&index)? {
            model.require_large(&shard)?;
        }
    }
    Ok(folder)
}

pub(super) fn resolve_dataset(name: &str, pattern: &str, options: &HubOptions) -> Result<Vec<PathBuf>> {
    let mut data = Download::<RepoTypeDataset>::new(name, options, "data set")?;
    if !pattern.is_empty() && !pattern.contains(['*', '?', '[']) {
        return Ok(vec![data.require_large(pattern)?]);
    }
    let wanted = glob::Pattern::new(pattern)
        .map_err(|error| Error::user(format!("{pattern} is not a valid glob: {error}")))?;
    let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::default() };
    let mut there = data.list()?;
    there.sort();
    let found: Vec<&String> = there.iter().filter(|path| wanted.matches_with(path, options)).collect();
    if found.is_empty() {
        let named: Vec<&str> =
            there.iter().map(String::as_str).filter(|path| is_data(path)).take(8).collect();
        let hint =
            format!("name files, for example hf://datasets/{name}/{}", named.first().unwrap_or(&"*.jsonl"));
        let message =
            format!("no file of {name} ({}) matches {pattern:?}; it has {}", data.revision, named.join(", "));
        return Err(Error::data(message).hint(hint));
    }
    let mut files = Vec::with_capacity(found.len());
    for path in found {
        let file = data.require_large(path)?;
        let depth = path.split('/').count();
        if let Some(snapshot) = file.ancestors().nth(depth) {
            data.stay_at(snapshot);
        }
        files.push(file);
    }
    Ok(files)
}

/// Whether a file may hold rows.
fn is_data(path: &str) -> bool {
    [".jsonl", ".jsonl.gz", ".jsonl.zst", ".json", ".parquet"].iter().any(|end| path.ends_with(end))
}

struct Download<'a, T: RepoType> {
    name: &'a str,
    /// "model" or "data set".
    what: &'static str,
    repository: HFRepositorySync<T>,
    /// `<endpoint>/<owner>/<name>`
    url: Url,
    /// The repository's folder in the cache.
    folder: PathBuf,
    token: Option<String>,
    revision: String,
    offline: bool,
    report: Option<DownloadProgress>,
}

impl<'a, T: RepoType> Download<'a, T> {
    fn new(name: &'a str, options: &HubOptions, what: &'static str) -> Result<Self> {
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
        let failed = |error| Error::device(format!("cannot start the hub client: {error}"));
        let facts = builder.build().map_err(failed)?;
        let client = HFClientSync::from_inner(facts.clone()).map_err(failed)?;
        let kind = T::default();
        let mut url = Url::parse(facts.endpoint())
            .map_err(|error| Error::user(format!("HF_ENDPOINT is not an address: {error}")))?;
        if let Ok(mut segments) = url.path_segments_mut() {
            let prefix = kind.url_prefix().trim_end_matches('/');
            segments.pop_if_empty().extend(Some(prefix).filter(|prefix| !prefix.is_empty()));
            segments.extend(name.split('/'));
        }
        let (owner, repository) = split_id(name);
        Ok(Self {
            name,
            what,
            url,
            folder: facts.cache_dir().join(format!("{}--{}", kind.plural(), name.replace('/', "--"))),
            repository: client.repository(kind, owner, repository),
            token: options.token.clone().or_else(stored_token),
            revision: options.revision.clone(),
            offline: options.offline || offline_by_environment(),
            report: options.progress.clone(),
        })
    }

    /// Takes what follows from the commit that a snapshot's folder is named after.
    fn stay_at(&mut self, snapshot: &Path) {
        if let Some(commit) = snapshot.file_name().and_then(|commit| commit.to_str()) {
            self.revision = commit.to_owned();
        }
    }

    /// As [`Self::fetch`], for files whose download is worth to be continued after it broke off.
    fn fetch_large(&self, file: &str) -> Result<Option<PathBuf>> {
        if !self.offline && !self.folder.join("snapshots").join(&self.revision).join(file).exists() {
            let transfer = Transfer {
                repository: self.url.clone(),
                revision: &self.revision,
                file,
                token: self.token.clone(),
                folder: self.folder.clone(),
                progress: self.report.clone(),
            };
            let Self { name, revision, .. } = self;
            transfer.run().context(|| format!("cannot download {file} of {name} ({revision})"))?;
        }
        self.fetch(file)
    }

    fn require_large(&self, file: &str) -> Result<PathBuf> {
        self.fetch_large(file)?.ok_or_else(|| self.missing(file))
    }

    /// The paths of all files, offline of those in the cache.
    fn list(&self) -> Result<Vec<String>> {
        if self.offline {
            return Ok(self.cached_files());
        }
        let entries = self.repository.list_tree().revision(&self.revision).recursive(true).send();
        let entries = entries.map_err(|error| self.explain("the list of files", &error))?;
        let inside =
            |path: &String| Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        let path = |entry| match entry {
            RepoTreeEntry::File { path, .. } => Some(path).filter(inside),
            RepoTreeEntry::Directory { .. } => None,
        };
        Ok(entries.into_iter().filter_map(path).collect())
    }

    fn cached_files(&self) -> Vec<String> {
        let commit = std::fs::read_to_string(self.folder.join("refs").join(&self.revision));
        let commit = commit.map_or_else(|_| self.revision.clone(), |commit| commit.trim().to_owned());
        let root = self.folder.join("snapshots").join(commit);
        let (mut files, mut folders) = (Vec::new(), vec![root.clone()]);
        while let Some(folder) = folders.pop() {
            for path in std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
                if path.is_dir() {
                    folders.push(path);
                } else if let Ok(inside) = path.strip_prefix(&root) {
                    files.push(inside.to_string_lossy().into_owned());
                }
            }
        }
        files
    }

    /// The path of a file in the cache; `None` if the repository has no such file.
    fn fetch(&self, file: &str) -> Result<Option<PathBuf>> {
        let mut attempt = 1;
        loop {
            let answer = self
                .repository
                .download_file()
                .filename(file)
                .revision(&self.revision)
                .local_files_only(self.offline)
                .maybe_progress(self.report.clone().map(|report| Progress::new(Report(report))))
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
        self.fetch(file)?.ok_or_else(|| self.missing(file))
    }

    fn missing(&self, file: &str) -> Error {
        let Self { name, revision, what, .. } = self;
        if self.offline {
            Error::data(format!("{name} ({revision}): {file} is not in the cache, and downloads are off"))
                .hint("run once without offline = true and HF_HUB_OFFLINE, or give a local folder")
        } else {
            Error::data(format!("{name} ({revision}) has no file {file}")).hint(format!(
                "check the {what}'s name and revision; a private or gated {what} needs a token (HF_TOKEN)"
            ))
        }
    }

    fn explain(&self, file: &str, error: &HFError) -> Error {
        let Self { name, revision, what, .. } = self;
        // Lists of files are refused by a bare status.
        let status = match error {
            HFError::Http { context } => context.status.as_u16(),
            _ => 0,
        };
        let hint = match error {
            _ if status == 404 => {
                format!("check the {what}'s name; a private {what} needs a token (HF_TOKEN)")
            }
            HFError::AuthRequired { .. } | HFError::Forbidden { .. } | HFError::Http { .. }
                if status == 0 || status == 401 || status == 403 =>
            {
                format!(
                    "the {what} is private, gated or misspelt: accept its terms on the hub and set HF_TOKEN to your token"
                )
            }
            HFError::RepoNotFound { .. } => {
                format!("check the {what}'s name; a private {what} needs a token (HF_TOKEN)")
            }
            HFError::RevisionNotFound { .. } => {
                format!("check the revision of the {what}: a branch, a tag or a commit")
            }
            HFError::RateLimited { .. } => {
                "the hub limits how often it is asked: wait, or set HF_TOKEN".into()
            }
            _ => {
                format!("check the network; a {what} that is in the cache can be used with HF_HUB_OFFLINE=1")
            }
        };
        Error::data(format!("cannot download {file} of {name} ({revision}): {error}")).hint(hint)
    }
}

fn offline_by_environment() -> bool {
    let value = std::env::var("HF_HUB_OFFLINE").unwrap_or_default();
    ["1", "true", "yes", "on"].contains(&value.to_lowercase().as_str())
}

/// HF_TOKEN, or what `hf auth login` left.
fn stored_token() -> Option<String> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    if variable("HF_HUB_DISABLE_IMPLICIT_TOKEN").is_some() {
        return None;
    }
    let home = variable("HF_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(std::env::home_dir()?.join(".cache").join("huggingface")));
    let file = variable("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| Some(home?.join("token")));
    let stored = || std::fs::read_to_string(file?).ok();
    let token = variable("HF_TOKEN").or_else(stored)?;
    Some(token.trim().to_owned()).filter(|token| !token.is_empty())
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
