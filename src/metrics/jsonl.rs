//! `metrics.jsonl`: one JSON object a line, steps and evaluations only.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use super::{Event, Sink};
use crate::error::{Result, ResultExt};

/// Appends to the file; a full disk costs lines, never the run.
pub struct JsonLines {
    file: File,
}

impl JsonLines {
    /// Opens `path`, keeping only lines up to `last_step`: a resumed run repeats the steps after its checkpoint.
    ///
    /// # Errors
    /// A data error if the file cannot be read or written.
    pub fn open(path: &Path, last_step: usize) -> Result<Self> {
        let doing = || format!("opening {}", path.display());
        let kept: String = match std::fs::read_to_string(path) {
            Ok(text) => text.split_inclusive('\n').filter(|line| step_of(line) <= last_step).collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).context(doing),
        };
        std::fs::write(path, if last_step == 0 { "" } else { &kept }).context(doing)?;
        Ok(Self { file: OpenOptions::new().append(true).open(path).context(doing)? })
    }
}

/// The step of a whole line; lines that are cut short count as later than any.
fn step_of(line: &str) -> usize {
    let step = serde_json::from_str::<serde_json::Value>(line).ok().and_then(|value| value["step"].as_u64());
    step.and_then(|step| usize::try_from(step).ok()).unwrap_or(usize::MAX)
}

impl Sink for JsonLines {
    fn event(&mut self, event: &Event) {
        let line = match event {
            Event::Step(report) => serde_json::to_string(report),
            Event::Evaluation(report) => serde_json::to_string(report),
            _ => return,
        };
        if let Ok(line) = line {
            let _ = writeln!(self.file, "{line}");
        }
    }
}
