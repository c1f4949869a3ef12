//! One process at a time trains in a run's folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Result, ResultExt};

const FILE: &str = "run.lock";
/// Whoever lists runs holds the lock for a moment; a killed process, until the system has taken back its memory.
const ATTEMPTS: usize = 300;
const PAUSE: Duration = Duration::from_millis(10);

/// Held as long as a process trains; the system lets go of it however the process ends.
#[derive(Debug)]
pub struct RunLock(#[expect(dead_code, reason = "closing the file gives the lock back")] File);

impl RunLock {
    /// # Errors
    /// A user error if another process trains in the folder; a data error if it cannot be written.
    pub fn take(run_dir: &Path) -> Result<Self> {
        let path = run_dir.join(FILE);
        let doing = || format!("locking {}", path.display());
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).context(doing)?;
        let attempt = || match file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error).context(doing),
        };
        if patiently(attempt)? { Ok(Self(file)) } else { Err(Self::taken(run_dir)) }
    }

    /// Refuses a folder early, before a model is read for it.
    ///
    /// # Errors
    /// A user error if another process trains in the folder.
    pub fn require_free(run_dir: &Path) -> Result<()> {
        if patiently(|| Ok(!Self::is_taken(run_dir)))? { Ok(()) } else { Err(Self::taken(run_dir)) }
    }

    /// Whether a process trains in the folder.
    pub fn is_taken(run_dir: &Path) -> bool {
        let Ok(file) = File::open(run_dir.join(FILE)) else { return false };
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    /// The error for a folder in which a process trains.
    fn taken(run_dir: &Path) -> Error {
        let message = format!("another process trains in {}", run_dir.display());
        Error::user(message).hint(format!("look at it with lazytune watch {}", run_dir.display()))
    }
}

/// Tries until `attempt` succeeds or a killed process would be gone; whether it succeeded.
fn patiently(attempt: impl Fn() -> Result<bool>) -> Result<bool> {
    for _ in 0..ATTEMPTS {
        if attempt()? {
            return Ok(true);
        }
        std::thread::sleep(PAUSE);
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_taken_as_long_as_the_lock_lives() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!RunLock::is_taken(folder.path()));
        let lock = RunLock::take(folder.path()).unwrap();
        assert!(RunLock::is_taken(folder.path()) && RunLock::take(folder.path()).is_err());
        let patience = Duration::from_millis(200);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(patience);
                drop(lock);
            });
            RunLock::require_free(folder.path()).unwrap();
        });
        assert!(!RunLock::is_taken(folder.path()) && RunLock::take(folder.path()).is_ok());
    }
}
