//! Finding checkpoints, and deleting old ones.

use std::path::{Path, PathBuf};

use super::atomic;
use crate::error::{Result, ResultExt};

/// The complete checkpoints of a run with their steps, oldest first. What a crash left behind is cleaned up.
pub fn list(run_dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    atomic::recover(run_dir, |name| step_of(name).is_some())?;
    let Ok(entries) = std::fs::read_dir(run_dir) else { return Ok(Vec::new()) };
    let mut found: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let step = step_of(entry.file_name().to_str()?)?;
            entry.path().is_dir().then(|| (step, entry.path()))
        })
        .collect();
    found.sort();
    Ok(found)
}

/// The step in a checkpoint's name.
fn step_of(name: &str) -> Option<u64> {
    name.strip_prefix("checkpoint-")?.parse().ok()
}

/// The checkpoint with the highest step.
pub fn latest(run_dir: &Path) -> Result<Option<PathBuf>> {
    Ok(list(run_dir)?.pop().map(|(_, folder)| folder))
}

/// Deletes the oldest checkpoints until `limit` are left besides those in `keep` (the best one); the newest always stays,
/// and a limit of 0 keeps all.
pub fn retain(run_dir: &Path, limit: usize, keep: &[PathBuf]) -> Result<()> {
    if limit == 0 {
        return Ok(());
    }
    let is_kept = |folder: &Path| keep.iter().any(|kept| kept.file_name() == folder.file_name());
    let mut found = list(run_dir)?;
    found.retain(|(_, folder)| !is_kept(folder));
    let surplus = found.len().saturating_sub(limit);
    for (_, folder) in &found[..surplus] {
        std::fs::remove_dir_all(folder).context(|| format!("deleting {}", folder.display()))?;
    }
    Ok(())
}
