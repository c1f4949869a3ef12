//! The dashboard's feed of a run in another process: its past from the file, everything later as it happens.

use std::fs::File;
use std::io::{Read, Take};
use std::path::Path;
use std::sync::mpsc::TryRecvError;
use std::time::Duration;

use crate::error::{Result, ResultExt};
use crate::metrics::{Event, EventParser};
use crate::train::control::Attached;
use crate::tui::{Feed, RunClock, State};

/// Bytes read, and events taken, before the keys are looked at again.
const CHUNK: usize = 1 << 18;
const AT_ONCE: usize = 4096;

/// Events of a run in another process.
pub struct AttachedFeed {
    /// What happened before; `None` once it is read.
    past: Option<Take<File>>,
    parser: EventParser,
    attached: Attached,
    clock: RunClock,
    ended: bool,
}

impl AttachedFeed {
    /// # Errors
    /// A data error if the run's metrics.jsonl cannot be opened.
    pub fn new(run_dir: &Path, attached: Attached) -> Result<Self> {
        let path = run_dir.join("metrics.jsonl");
        let file = File::open(&path).context(|| format!("opening {}", path.display()))?;
        let past = Some(file.take(attached.position));
        let (parser, clock) = (EventParser::default(), RunClock::default());
        Ok(Self { past, parser, attached, clock, ended: false })
    }

    fn apply(&mut self, event: &Event, state: &mut State) {
        state.apply(event, self.clock.time(event));
    }
}

impl Feed for AttachedFeed {
    fn update(&mut self, state: &mut State, _: Duration) -> Result<bool> {
        if let Some(past) = &mut self.past {
            let mut chunk = vec![0; CHUNK];
            let count = past.read(&mut chunk).context(|| "reading the run's metrics.jsonl".to_owned())?;
            let mut events = Vec::new();
            self.parser.feed(&chunk[..count], &mut |event| events.push(event));
            if count == 0 {
                self.past = None;
            }
            events.iter().for_each(|event| self.apply(event, state));
            return Ok(true);
        }
        let mut changed = false;
        for _ in 0..AT_ONCE {
            match self.attached.events.try_recv() {
                Ok(event) => self.apply(&event, state),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    changed |= !self.ended;
                    self.ended = true;
                    break;
                }
            }
            changed = true;
        }
        while let Ok(refusal) = self.attached.refusals.try_recv() {
            state.ui.say(refusal);
            changed = true;
        }
        Ok(changed)
    }

    fn ended(&self) -> bool {
        self.ended
    }
}
