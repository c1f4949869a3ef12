//! Models and data sets by name from the Hugging Face hub, through its local cache.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Result;

/// Called while a file downloads, from another thread: file name, bytes so far, bytes in all (0: unknown).
pub type DownloadProgress = Arc<dyn Fn(&str, u64, u64) + Send + Sync>;

/// How to reach the hub.
#[derive(Clone)]
pub struct HubOptions {
    /// Branch, tag or commit.
    pub revision: String,
    /// `None`: the environment's HF_TOKEN, or the token that `hf auth login` stored.
    pub token: Option<String>,
    /// `None`: HF_HUB_CACHE, HF_HOME/hub or ~/.cache/huggingface/hub.
    pub cache: Option<PathBuf>,
    /// Only use what is in the cache; the environment's HF_HUB_OFFLINE does the same.
    pub offline: bool,
    /// `None`: HF_ENDPOINT or the public hub.
    pub endpoint: Option<String>,
    pub progress: Option<DownloadProgress>,
}

impl Default for HubOptions {
    fn default() -> Self {
        Self {
            revision: "main".into(),
            token: None,
            cache: None,
            offline: false,
            endpoint: None,
            progress: None,
        }
    }
}

/// Brings the files of the model `name` (`owner/model`) into the cache and returns their folder.
///
/// Missing models, refused tokens and files absent while offline are errors that say what to do.
#[cfg(feature = "hub")]
pub fn resolve(name: &str, options: &HubOptions) -> Result<PathBuf> {
    download::resolve(name, options)
}

/// Brings files of the data set `name` (`owner/name`) into the cache: one by its path in the repository, or those that
/// match a glob, sorted. Returns where they are.
///
/// # Errors
/// As for [`resolve`], or nothing matches.
#[cfg(feature = "hub")]
pub fn resolve_dataset(name: &str, pattern: &str, options: &HubOptions) -> Result<Vec<PathBuf>> {
    download::resolve_dataset(name, pattern, options)
}

/// This build has no hub client: always an error.
#[cfg(not(feature = "hub"))]
pub fn resolve_dataset(name: &str, pattern: &str, _options: &HubOptions) -> Result<Vec<PathBuf>> {
    Err(crate::error::Error::user(format!("this build cannot download {pattern} of {name}"))
        .hint("build with the cargo feature \"hub\", or download the files and give their paths"))
}

/// This build has no hub client: always an error.
#[cfg(not(feature = "hub"))]
pub fn resolve(name: &str, _options: &HubOptions) -> Result<PathBuf> {
    Err(crate::error::Error::user(format!(
        "{name} is neither a folder nor a file, and this build cannot download it"
    ))
    .hint("build with the cargo feature \"hub\", or download the model and give its folder"))
}

#[cfg(feature = "hub")]
#[path = "hub_download.rs"]
mod download;

#[cfg(feature = "hub")]
#[path = "hub_transfer.rs"]
mod transfer;

#[cfg(feature = "hub")]
#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;
