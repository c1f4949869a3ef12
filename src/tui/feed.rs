//! Where events come from: a run in this process, a growing file, a recording.

use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

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
    /// Takes the receiving end; the run keeps the sender.
    pub fn new(events: Receiver<Event>) -> Self {
        Self { events, ended: false }
    }
}

impl Feed for Channel {
    fn update(&mut self, state: &mut State, now: Duration) -> Result<bool> {
        let mut changed = false;
        if !self.ended {
            state.tick(now);
        }
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
    /// When the file was looked at, and when there was something, on the dashboard's clock.
    looked: Option<Duration>,
    grown: Duration,
    /// Lines that were left out.
    skipped: u64,
    ended: bool,
}

impl Tail {
    /// Follows a file from its beginning.
    pub fn new(file: MetricsFile) -> Self {
        let (clock, grown) = (RunClock::default(), Duration::ZERO);
        Self { file, clock, looked: None, grown, skipped: 0, ended: false }
    }
}

impl Feed for Tail {
    fn update(&mut self, state: &mut State, now: Duration) -> Result<bool> {
        if !self.ended {
            state.tick(self.clock.now.saturating_add(now.saturating_sub(self.grown)));
        }
        let waited = self.looked.is_none_or(|looked| now.saturating_sub(looked) >= FILE_INTERVAL);
        if !waited && !self.file.behind() {
            return Ok(false);
        }
        self.looked = Some(now);
        let mut events = Vec::new();
        if self.file.poll(&mut events)? {
            state.run = Run::default();
            self.clock = RunClock::default();
        }
        for event in &events {
            state.apply(event, self.clock.time(event));
        }
        if !events.is_empty() {
            self.grown = now;
        }
        let skipped = self.file.skipped();
        if skipped.unknown + skipped.damaged > self.skipped {
            self.skipped = skipped.unknown + skipped.damaged;
            let (unknown, damaged) = (skipped.unknown, skipped.damaged);
            state.ui.say(format!("left out: {unknown} lines of a newer version, {damaged} damaged ones"));
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

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::tui::{Session, testing};

    fn line(event: &Event) -> String {
        serde_json::to_string(event).unwrap() + "\n"
    }

    #[test]
    fn a_growing_file_is_a_run_that_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = std::fs::File::create(folder.path().join("metrics.jsonl")).unwrap();
        let mut state = State::new(Session::ReadOnly { reason: "a test".into() });
        let mut tail = Tail::new(MetricsFile::open(folder.path()).unwrap());
        for (_, event) in testing::events(100, 1000) {
            file.write_all(line(&event).as_bytes()).unwrap();
        }
        write!(file, "{{\"event\":\"of the future\"}}\n{{\"event\":\"st").unwrap();
        assert!(tail.update(&mut state, Duration::from_secs(1)).unwrap());
        assert_eq!((state.run.step, state.now), (100, Duration::from_secs(45)));
        assert_eq!(state.ui.message(), Some("left out: 1 lines of a newer version, 0 damaged ones"));
        assert!(!tail.update(&mut state, Duration::from_secs(2)).unwrap());
        assert_eq!(state.now, Duration::from_secs(46));
        assert_eq!(state.silence(), None);
        tail.update(&mut state, Duration::from_secs(500)).unwrap();
        assert_eq!(state.silence(), Some(Duration::from_secs(499)));
        assert!(!tail.ended());
    }

    #[test]
    fn a_file_that_is_begun_again_is_another_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut state = State::new(Session::ReadOnly { reason: "a test".into() });
        let text: String = testing::events(50, 100).iter().map(|(_, event)| line(event)).collect();
        std::fs::write(&path, &text).unwrap();
        let mut tail = Tail::new(MetricsFile::open(folder.path()).unwrap());
        tail.update(&mut state, Duration::ZERO).unwrap();
        assert_eq!(state.run.latency.total(), 50);
        std::fs::write(&path, &text[..text.len() / 2]).unwrap();
        tail.update(&mut state, Duration::from_secs(1)).unwrap();
        assert!(state.run.latency.total() < 40, "{}", state.run.latency.total());
    }

    #[test]
    fn a_resumed_runs_clock_goes_on() {
        let mut clock = RunClock::default();
        let step = |elapsed_seconds| {
            Event::Step(crate::metrics::StepReport { elapsed_seconds, ..Default::default() })
        };
        assert_eq!(clock.time(&step(5.0)), Duration::from_secs(5));
        clock.time(&testing::started(9));
        assert_eq!(clock.time(&step(2.0)), Duration::from_secs(7));
        assert_eq!(clock.time(&step(f64::NAN)), Duration::from_secs(7));
    }
}
