//! Folders that appear whole or not at all.
//!
//! A folder is written as `.tmp-{name}` beside its place, flushed to the disk and renamed. If there is one already, it
//! is first renamed to `.old-{name}`, and deleted last. Whatever a crash leaves behind, [`recover`] puts in order: an
//! `.old-` folder whose successor is missing goes back to its place, the others are deleted.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, ResultExt};

const TEMPORARY: &str = ".tmp-";
const REPLACED: &str = ".old-";

/// Creates or replaces the folder `target` with what `write` puts into the folder that it is given.
///
/// If `write` fails, nothing changes at `target`. Its parent is created if missing.
pub fn write_directory(target: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    // The parent of a bare name is the empty path.
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).context(|| format!("creating {}", parent.display()))?;
    let temporary = sibling(target, TEMPORARY)?;
    let replaced = sibling(target, REPLACED)?;
    restore(target, &replaced)?;
    remove(&temporary)?;
    std::fs::create_dir(&temporary).context(|| format!("creating {}", temporary.display()))?;
    let written = write(&temporary).and_then(|()| flush(&temporary));
    if let Err(error) = written {
        // The error that stopped the writing matters more than one from cleaning up.
        let _ = std::fs::remove_dir_all(&temporary);
        return Err(error);
    }
    if target.exists() {
        rename(target, &replaced)?;
    }
    rename(&temporary, target)?;
    sync_folder(parent)?;
    remove(&replaced)
}

/// Cleans up after a crash in the middle of [`write_directory`], for those folders in `parent` that are `ours` by name.
///
/// Must not run while another process writes there.
pub fn recover(parent: &Path, ours: impl Fn(&str) -> bool) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(parent) else { return Ok(()) };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if let Some(original) = name.strip_prefix(REPLACED).filter(|name| ours(name)) {
            restore(&parent.join(original), &entry.path())?;
        } else if name.strip_prefix(TEMPORARY).is_some_and(&ours) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Puts a replaced folder back if its successor never arrived, and deletes it otherwise.
fn restore(target: &Path, replaced: &Path) -> Result<()> {
    if replaced.exists() && !target.exists() { rename(replaced, target) } else { remove(replaced) }
}

fn sibling(target: &Path, prefix: &str) -> Result<PathBuf> {
    match target.file_name() {
        Some(name) => Ok(target.with_file_name(format!("{prefix}{}", name.to_string_lossy()))),
        None => Err(Error::user(format!("{} is not a folder that can be written", target.display()))),
    }
}

fn remove(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context(|| format!("deleting {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).context(|| format!("renaming {} to {}", from.display(), to.display()))
}

/// Flushes every file below `folder`, and the folders themselves, to the disk.
fn flush(folder: &Path) -> Result<()> {
    let doing = || format!("flushing {}", folder.display());
    for entry in std::fs::read_dir(folder).context(doing)? {
        let path = entry.context(doing)?.path();
        if path.is_dir() {
            flush(&path)?;
        } else {
            // Windows flushes only files that are open for writing.
            let file = File::options().read(true).write(cfg!(windows)).open(&path).context(doing)?;
            file.sync_all().context(doing)?;
        }
    }
    sync_folder(folder)
}

fn sync_folder(folder: &Path) -> Result<()> {
    // Windows has no handle on a folder that could be flushed; it journals renames itself.
    if cfg!(windows) {
        return Ok(());
    }
    File::open(folder)
        .and_then(|handle| handle.sync_all())
        .context(|| format!("flushing {}", folder.display()))
}
