//! `lazytune train --detach`: the run in a process of its own that outlives the terminal.

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::printer::Printer;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::train::RunLock;

const LOG: &str = "log.txt";
/// A run that fails for what it was given mostly does so by then.
const TRIAL: Duration = Duration::from_secs(3);

/// Starts the same command again, without a terminal, and returns once it trains or seems to be on its way.
///
/// # Errors
/// What the process said, if it ended at once.
pub fn start(run_dir: &Path, printer: &Printer) -> Result<()> {
    std::fs::create_dir_all(run_dir).context(|| format!("creating {}", run_dir.display()))?;
    let path = run_dir.join(LOG);
    let mut child = spawn(&path).context(|| format!("starting a process that writes {}", path.display()))?;
    let begun = Instant::now();
    while begun.elapsed() < TRIAL && !RunLock::is_taken(run_dir) {
        if let Some(status) = child.try_wait().context(|| "waiting for the process".to_owned())? {
            let log = std::fs::read_to_string(&path).unwrap_or_default();
            let _ = std::fs::remove_file(&path);
            // The folder may be there for nothing else.
            let _ = std::fs::remove_dir(run_dir);
            return if status.success() { Ok(()) } else { Err(ended(&log, status.code())) };
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let shown = run_dir.display();
    printer.note(&format!(
        "process {} trains in the background; its output goes to {}",
        child.id(),
        path.display()
    ));
    printer.note(&format!("look at it with: lazytune watch {shown}"));
    printer.data(&shown.to_string());
    Ok(())
}

fn spawn(log: &Path) -> std::io::Result<Child> {
    let arguments = std::env::args_os().skip(1);
    let arguments: Vec<OsString> = arguments.filter(|argument| argument != "--detach").collect();
    let log = File::create(log)?;
    Command::new(std::env::current_exe()?)
        .args(arguments)
        .args(["--plain", "--detached"])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
}

/// The process's last words, with the kind that its exit code tells.
fn ended(log: &str, code: Option<i32>) -> Error {
    let log = log.trim();
    let text = log.strip_prefix("error: ").unwrap_or(log);
    let kind = if code == Some(2) { ErrorKind::User } else { ErrorKind::Data };
    Error::new(kind, if text.is_empty() { "the process ended at once" } else { text })
}

/// Leaves the terminal's session, so that closing it does not end the run.
pub fn leave_terminal() {
    // The leader of a group cannot; it has no terminal to leave then.
    #[cfg(unix)]
    let _ = nix::unistd::setsid();
}
