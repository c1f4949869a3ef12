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
    /// Time since the dashboard was opened, or the place in a replay.
    pub now: Duration,
}

impl State {
    pub fn new(session: Session) -> Self {
        Self { session, ..Self::default() }
    }

    /// Takes in an event that happened at `now`.
    pub fn apply(&mut self, event: &Event, now: Duration) {
        self.now = now;
        self.run.apply(event, now);
    }

    /// Moves the clock.
    pub fn tick(&mut self, now: Duration) {
        self.now = now;
        self.ui.forget_message(now);
    }
}
