//! What the dashboard knows: the run, from its events, and what the user looks at, from the keys.

mod describe;
mod facts;
mod histogram;
mod log;
mod run;
mod series;
mod smooth;
mod stages;

use std::time::Duration;

pub use facts::{LayerLook, PlanFacts};
pub use log::{Entry, Weight};
pub use run::{Run, Status};
pub use series::{Bucket, Series};
pub use stages::STAGES;

use super::input::Ui;
use crate::metrics::Event;

/// A run is silent after this long without an event, and after so many of its slowest steps.
const SILENT: Duration = Duration::from_secs(120);
const SLOW: f64 = 20.0;

/// What may be asked of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Session {
    /// The dashboard of the process that trains, or of one that listens on its control socket.
    Live {
        /// Whether the run goes on without the dashboard.
        detachable: bool,
    },
    /// A run that takes no commands from here, and why: "started by another user".
    ReadOnly { reason: String },
    /// A run of the past.
    Replay,
}

impl Default for Session {
    fn default() -> Self {
        Self::Live { detachable: false }
    }
}

/// The whole dashboard as a value; nothing in here reads a clock, a file or a terminal.
#[derive(Debug, Clone, Default)]
pub struct State {
    pub run: Run,
    pub ui: Ui,
    pub session: Session,
    /// The run's clock: time since the dashboard or the run was started, or the place in a replay.
    pub now: Duration,
}

impl State {
    /// A dashboard that knows nothing yet.
    pub fn new(session: Session) -> Self {
        Self { session, ..Self::default() }
    }

    /// Takes in an event that happened at `now`.
    pub fn apply(&mut self, event: &Event, now: Duration) {
        self.now = now;
        self.run.apply(event, now);
    }

    /// Moves the run's clock.
    pub fn tick(&mut self, now: Duration) {
        self.now = now;
    }

    /// For how long a run that goes on has told nothing, where that is longer than its steps explain.
    pub fn silence(&self) -> Option<Duration> {
        let expected = self.run.latency.quantile(0.99).unwrap_or(0.0) / 1e3 * SLOW;
        let expected = Duration::try_from_secs_f64(expected).unwrap_or(Duration::MAX).max(SILENT);
        let silent = self.now.saturating_sub(self.run.heard);
        let running = self.run.status == Status::Running && self.session != Session::Replay;
        (running && silent > expected).then_some(silent)
    }
}
