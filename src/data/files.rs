//! Paths and globs of data files.

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// Expands globs; plain paths stay as they are. The files of one glob come in alphabetical order, and a file named
/// twice is read once.
///
/// # Errors
/// A glob is malformed or matches nothing.
pub fn expand(patterns: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = Vec::new();
    for pattern in patterns {
        let matches = if is_glob(pattern) { matching_files(pattern)? } else { vec![pattern.clone()] };
        for file in matches {
            if !files.contains(&file) {
                files.push(file);
            }
        }
    }
    Ok(files)
}

/// A file whose name has a bracket in it is a file.
fn is_glob(path: &Path) -> bool {
    path.to_str().is_some_and(|text| text.contains(['*', '?', '['])) && !path.exists()
}

fn matching_files(pattern: &Path) -> Result<Vec<PathBuf>> {
    let text = pattern.to_string_lossy();
    let paths = glob::glob(&text).map_err(|error| Error::user(format!("bad glob {text}: {error}")))?;
    let mut files = Vec::new();
    for path in paths {
        let path = path.map_err(|error| Error::data(format!("while expanding {text}: {error}")))?;
        if path.is_file() {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(
            Error::data(format!("no file matches {text}")).hint("check data.train and data.validation")
        );
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_are_sorted_and_files_are_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["b.jsonl", "a.jsonl", "odd[1].jsonl"] {
            std::fs::write(path(name), "{}").unwrap();
        }
        let expanded = expand(&[path("[ab].jsonl"), path("a.jsonl"), path("odd[1].jsonl")]).unwrap();
        assert_eq!(expanded, [path("a.jsonl"), path("b.jsonl"), path("odd[1].jsonl")]);
        assert!(expand(&[path("*.csv")]).unwrap_err().to_string().contains("no file matches"));
        assert!(expand(&[path("[.jsonl")]).is_err());
    }
}
