//! Where events come from: a run in this process, a growing file, a recording.

use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use super::state::{Run, State};
use crate::error::Result;
use crate::metrics::{Event, MetricsFile};

/// Events taken at once, so that keys are looked at in between.
const AT_ONCE: usize = 4096;
/// How often a file is looked at.
const FILE_INTERVAL: Duration = Duration::from_millis(250);

/// Brings a state up to date, without waiting.
pub trait Feed {
    /// Applies what there is by now; `now` is the time since the dashboard was opened. Says whether anything changed.
    ///
    /// # Errors
    /// A data error if a file cannot be read any more.
    fn update(&mut self, state: &mut State, now: Duration) -> Result<bool>;

    /// Whether no more events can come.
    fn ended(&self) -> bool;
}

/// Events of a run in this process; it ends when the sender is dropped.
pub struct Channel {
    events: Receiver<Event>,
    ended: bool,
}

impl Channel {
    pub fn new(events: Receiver<Event>) -> Self {
        Self { events, ended: false }
    }
}

impl Feed for Channel {
    fn update(&mut self, state: &mut State, now: Duration) -> Result<bool> {
        let mut changed = false;
        for _ in 0..AT_ONCE {
            match self.events.try_recv() {
                Ok(event) => state.apply(&event, now),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    changed |= !self.ended;
                    self.ended = true;
                    break;
                }
            }
            changed = true;
        }
        Ok(changed)
    }

    fn ended(&self) -> bool {
        self.ended
    }
}

/// A run in another process, through its metrics file.
pub struct Tail {
    file: MetricsFile,
    clock: RunClock,
    looked: Option<Instant>,
    ended: bool,
}

impl Tail {
    pub fn new(file: MetricsFile) -> Self {
        Self { file, clock: RunClock::default(), looked: None, ended: false }
    }
}

impl Feed for Tail {
    fn update(&mut self, state: &mut State, _: Duration) -> Result<bool> {
        if self.looked.is_some_and(|looked| looked.elapsed() < FILE_INTERVAL) {
            return Ok(false);
        }
        self.looked = Some(Instant::now());
        let mut events = Vec::new();
        if self.file.poll(&mut events)? {
            state.run = Run::default();
            self.clock = RunClock::default();
        }
        for event in &events {
            state.apply(event, self.clock.time(event));
        }
        let skipped = self.file.skipped();
        if skipped.unknown > 0 && state.ui.message().is_none() && !events.is_empty() {
            let text = format!("{} lines are of a newer version and are left out", skipped.unknown);
            state.ui.say(text, state.now);
        }
        self.ended = state.run.status.ended();
        Ok(!events.is_empty())
    }

    fn ended(&self) -> bool {
        self.ended
    }
}

/// The time of events that were written down: that of the last step, or counted up where steps have none.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunClock {
    now: Duration,
    /// What earlier processes of the run took.
    before: Duration,
}

impl RunClock {
    /// The time at which an event happened, since the run began; it never goes back.
    pub fn time(&mut self, event: &Event) -> Duration {
        match event {
            Event::Started { .. } => self.before = self.now,
            Event::Step(report) => {
                let elapsed = Duration::try_from_secs_f64(report.elapsed_seconds).unwrap_or_default();
                let counted = if elapsed.is_zero() {
                    let ms = report.step_ms + report.data_wait_ms + report.eval_ms + report.checkpoint_ms;
                    self.now.saturating_add(Duration::try_from_secs_f64(ms / 1e3).unwrap_or_default())
                } else {
                    self.before.saturating_add(elapsed)
                };
                self.now = self.now.max(counted);
            }
            _ => {}
        }
        self.now
    }
}
