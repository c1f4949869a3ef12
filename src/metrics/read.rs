//! Reading `metrics.jsonl` back: whole, cut short, growing, or written by a newer version.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Event;
use crate::error::{Error, Result, ResultExt};

/// A longer line is skipped, so that a file without line ends cannot fill the memory.
const LONGEST_LINE: usize = 1 << 20;
/// Bytes read with one call of the system, and with one call of `MetricsFile::poll`: a long run's events do not all lie
/// in memory at the same time.
const CHUNK: usize = 1 << 16;
const MOST: usize = 1 << 22;

/// What was skipped, and why.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Lines that are not JSON objects, or are too long.
    pub damaged: u64,
    /// Objects of a kind that this version does not know, or that lack what every version writes.
    pub unknown: u64,
}

/// Puts bytes together to lines, and lines to events. Whatever cannot be read is counted and skipped.
#[derive(Debug, Default)]
pub struct EventParser {
    partial: Vec<u8>,
    /// Whether the rest of the line is dropped because it is too long.
    dropping: bool,
    /// What was left out so far.
    pub skipped: Skipped,
}

impl EventParser {
    /// Takes the next bytes; a line that has not ended yet waits for its end.
    pub fn feed(&mut self, bytes: &[u8], take: &mut dyn FnMut(Event)) {
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            let ended = part.ends_with(b"\n");
            if !self.dropping {
                self.partial.extend_from_slice(part);
            }
            if self.partial.len() > LONGEST_LINE {
                self.skipped.damaged += 1;
                self.dropping = true;
                self.partial = Vec::new();
            }
            if ended {
                self.line(take);
                self.dropping = false;
            }
        }
    }

    fn line(&mut self, take: &mut dyn FnMut(Event)) {
        let line = std::mem::take(&mut self.partial);
        if self.dropping || line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        match serde_json::from_slice::<Value>(&line) {
            Ok(value @ Value::Object(_)) => match parse(value) {
                Some(event) => take(event),
                None => self.skipped.unknown += 1,
            },
            _ => self.skipped.damaged += 1,
        }
    }
}

/// Lines of a step or an evaluation may come without `event`.
fn parse(value: Value) -> Option<Event> {
    if value.get("event").is_some() {
        return serde_json::from_value(value).ok();
    }
    value.get("step")?;
    if value.get("eval_loss").is_some() {
        return serde_json::from_value(value).ok().map(Event::Evaluation);
    }
    value.get("loss")?;
    serde_json::from_value(value).ok().map(Event::Step)
}

/// A metrics file that may still grow.
#[derive(Debug)]
pub struct MetricsFile {
    path: PathBuf,
    file: File,
    position: u64,
    parser: EventParser,
    /// Whether the last look stopped before the end.
    behind: bool,
}

impl MetricsFile {
    /// Opens `run_dir/metrics.jsonl`, or `run_dir` itself where it is a file.
    ///
    /// # Errors
    /// A user error if there is no such folder or it is not a run's; a data error if the file cannot be read.
    pub fn open(run_dir: &Path) -> Result<Self> {
        let path = if run_dir.is_dir() { run_dir.join("metrics.jsonl") } else { run_dir.to_owned() };
        if !path.is_file() {
            let what = if run_dir.is_dir() { "holds no metrics.jsonl" } else { "does not exist" };
            let message = format!("{} is not the folder of a run: it {what}", run_dir.display());
            return Err(Error::user(message).hint("name a run's folder, for example runs/quickstart"));
        }
        let file = File::open(&path).context(|| format!("opening {}", path.display()))?;
        Ok(Self { path, file, position: 0, parser: EventParser::default(), behind: false })
    }

    /// Hands over what was added since the last call, or a first part of it, and says whether the file was begun again: then it starts from the
    /// first line, and whatever was made from earlier events is to be thrown away before the events are taken.
    ///
    /// # Errors
    /// A data error if the file cannot be read.
    pub fn poll(&mut self, events: &mut Vec<Event>) -> Result<bool> {
        let doing = || format!("reading {}", self.path.display());
        let length = self.file.metadata().context(doing)?.len();
        let restarted = length < self.position;
        if restarted {
            self.position = 0;
            self.parser = EventParser::default();
        }
        self.file.seek(SeekFrom::Start(self.position)).context(doing)?;
        let mut chunk = vec![0; CHUNK];
        for _ in 0..MOST / CHUNK {
            let count = self.file.read(&mut chunk).context(doing)?;
            self.behind = count > 0;
            if count == 0 {
                break;
            }
            self.position += count as u64;
            self.parser.feed(&chunk[..count], &mut |event| events.push(event));
        }
        Ok(restarted)
    }

    /// Whether there is more to read at once.
    pub fn behind(&self) -> bool {
        self.behind
    }

    /// What was left out so far, since the file was begun.
    pub fn skipped(&self) -> Skipped {
        self.parser.skipped
    }

    /// The file itself, also where a folder was named.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests;
