//! `metrics.jsonl`: every event of a run, one JSON object a line.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Event, Sink};
use crate::error::{Result, ResultExt};

/// Nothing that a run writes comes near it.
const LONGEST_LINE: u64 = 1 << 20;

/// Appends to the file; a full disk costs lines, never the run.
pub struct JsonLines {
    file: File,
    length: Arc<AtomicU64>,
}

impl JsonLines {
    /// Opens `path`, keeping only what happened up to `last_step`: a resumed run repeats the steps after its checkpoint.
    ///
    /// # Errors
    /// A data error if the file cannot be read or written.
    pub fn open(path: &Path, last_step: usize) -> Result<Self> {
        let doing = || format!("opening {}", path.display());
        let file = OpenOptions::new().create(true).read(true).append(true).open(path).context(doing)?;
        let kept = if last_step == 0 { 0 } else { length_up_to(&file, last_step).context(doing)? };
        file.set_len(kept).context(doing)?;
        Ok(Self { file, length: Arc::new(AtomicU64::new(kept)) })
    }

    /// Bytes of the lines written so far, to be looked at from other threads.
    pub fn length(&self) -> Arc<AtomicU64> {
        self.length.clone()
    }
}

/// Bytes before the first line of a later step, or before one that is cut short.
fn length_up_to(file: &File, last_step: usize) -> std::io::Result<u64> {
    let (mut reader, mut kept, mut line) = (BufReader::new(file), 0, Vec::new());
    loop {
        line.clear();
        let count = reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)?;
        let later = step_of(&line).is_some_and(|step| step > last_step as u64);
        if !line.ends_with(b"\n") || later {
            return Ok(kept);
        }
        kept += count as u64;
    }
}

/// The step that a line speaks of, if it does.
fn step_of(line: &[u8]) -> Option<u64> {
    let value: serde_json::Value = serde_json::from_slice(line).ok()?;
    ["step", "steps", "first_step"].iter().find_map(|name| value[name].as_u64())
}

impl Sink for JsonLines {
    fn event(&mut self, event: &Event) {
        let Ok(mut line) = serde_json::to_string(event) else { return };
        line.push('\n');
        if self.file.write_all(line.as_bytes()).is_ok() {
            self.length.fetch_add(line.len() as u64, Ordering::AcqRel);
        } else if let Ok(metadata) = self.file.metadata() {
            // Part of the line may be there.
            self.length.store(metadata.len(), Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::StepReport;

    #[test]
    fn resuming_keeps_what_happened_before_the_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let step = |step| Event::Step(StepReport { step, ..StepReport::default() });
        let notice = |message: &str| Event::Notice { message: message.into() };
        let mut lines = JsonLines::open(&path, 0).unwrap();
        for event in [notice("early"), step(1), notice("between"), step(2), notice("late"), step(3)] {
            lines.event(&event);
        }
        let written = std::fs::read_to_string(&path).unwrap();
        assert_eq!(lines.length().load(Ordering::Acquire), written.len() as u64);
        std::fs::write(&path, format!("{written}{{\"event\":\"step\",\"st")).unwrap();
        JsonLines::open(&path, 3).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), written);
        JsonLines::open(&path, 1).unwrap();
        let kept = std::fs::read_to_string(&path).unwrap();
        assert!(written.starts_with(&kept) && kept.lines().count() == 3, "{kept}");
        JsonLines::open(&path, 0).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
    }
}
