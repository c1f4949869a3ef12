//! Paths: absolute, `~` expanded, globs matched.

use super::Resolver;
use crate::config::sections::HubFiles;
use std::path::{Path, PathBuf};

/// More matches of one glob are taken for a mistake.
const MAX_MATCHES: usize = 10_000;

impl Resolver<'_> {
    /// The folder that a relative input path of this key starts from.
    pub(super) fn base(&self, section: &str, key: &str) -> &Path {
        if self.document.overridden(section, key) { &self.current_folder } else { &self.config_folder }
    }

    /// The absolute form of an input path.
    pub(super) fn input(&self, section: &str, key: &str, path: &Path) -> PathBuf {
        self.base(section, key).join(expand_home(path))
    }

    /// The absolute form of an output path, which starts from the current folder.
    pub(super) fn output(&self, path: &Path) -> PathBuf {
        self.current_folder.join(expand_home(path))
    }
}

/// `~/models` as a path in the home folder.
fn expand_home(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), std::env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

/// Files that a path or glob names, sorted; the error says in one line why there are none.
pub(super) fn expand(base: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    if pattern.trim().is_empty() {
        return Err("the path is empty".to_owned());
    }
    if pattern.starts_with(HubFiles::PREFIX) {
        HubFiles::parse(pattern)?;
        return Ok(vec![PathBuf::from(pattern)]);
    }
    let relative = expand_home(Path::new(pattern));
    let literal = base.join(&relative);
    // A name that exists is meant as it stands, even with a `[` in it.
    if literal.is_file() {
        return Ok(vec![literal]);
    }
    if literal.is_dir() {
        return Err("this is a folder: write \"folder/*.jsonl\" for its files".to_owned());
    }
    if !pattern.contains(['*', '?', '[']) {
        let reason = if literal.exists() { "not a regular file" } else { "there is no such file" };
        return Err(format!("{reason}: {}", literal.display()));
    }
    matches(base, &relative.to_string_lossy())
}

fn matches(base: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    let base = glob::Pattern::escape(&base.to_string_lossy());
    // An absolute pattern replaces the base.
    let whole = Path::new(&base).join(pattern);
    let found = glob::glob(&whole.to_string_lossy()).map_err(|error| format!("not a valid glob: {error}"))?;
    let mut files = Vec::new();
    for path in found {
        let path = path.map_err(|error| error.to_string())?;
        if path.is_file() {
            files.push(path);
        }
        if files.len() > MAX_MATCHES {
            return Err(format!("the glob matches more than {MAX_MATCHES} files"));
        }
    }
    if files.is_empty() {
        return Err("no file matches this glob".to_owned());
    }
    files.sort();
    Ok(files)
}
