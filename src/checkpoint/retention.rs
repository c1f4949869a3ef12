//! Finding checkpoints, and deleting old ones.

use std::path::{Path, PathBuf};

use super::atomic;
use crate::error::{Result, ResultExt};

/// The complete checkpoints of a run with their steps, oldest first. What a crash left behind is cleaned up.
pub fn list(run_dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    atomic::recover(run_dir)?;
    let Ok(entries) = std::fs::read_dir(run_dir) else { return Ok(Vec::new()) };
    let mut found: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let step = entry.file_name().to_str()?.strip_prefix("checkpoint-")?.parse().ok()?;
            entry.path().is_dir().then(|| (step, entry.path()))
        })
        .collect();
    found.sort();
    Ok(found)
}

/// The checkpoint with the highest step.
pub fn latest(run_dir: &Path) -> Result<Option<PathBuf>> {
    Ok(list(run_dir)?.pop().map(|(_, folder)| folder))
}

/// Deletes the oldest checkpoints until `limit` are left; the newest and those in `keep` (the best one) always stay.
pub fn retain(run_dir: &Path, limit: usize, keep: &[PathBuf]) -> Result<()> {
    let found = list(run_dir)?;
    let mut surplus = found.len().saturating_sub(limit);
    let newest = found.len().saturating_sub(1);
    for (_, folder) in &found[..newest] {
        if surplus == 0 {
            break;
        }
        let is_kept = keep.iter().any(|kept| kept.file_name() == folder.file_name());
        if !is_kept {
            std::fs::remove_dir_all(folder).context(|| format!("deleting {}", folder.display()))?;
            surplus -= 1;
        }
    }
    Ok(())
}
