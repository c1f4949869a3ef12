//! The part of the state that keys change.

use std::time::Duration;

use super::{Overlay, Slider, Zoom};

/// How long a message stays in the footer.
const MESSAGE_TIME: Duration = Duration::from_secs(4);

/// What can be focused, in the order of the number keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pane {
    #[default]
    Loss,
    Throughput,
    Latency,
    Memory,
    Rate,
    Plan,
    Layers,
    Samples,
    Events,
}

impl Pane {
    /// In the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Loss,
        Self::Throughput,
        Self::Latency,
        Self::Memory,
        Self::Rate,
        Self::Plan,
        Self::Layers,
        Self::Samples,
        Self::Events,
    ];

    /// Its place among all, from 0.
    pub fn index(self) -> usize {
        self as usize
    }

    /// A word for tabs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Loss => "Loss",
            Self::Throughput => "Speed",
            Self::Latency => "Latency",
            Self::Memory => "Memory",
            Self::Rate => "Rate",
            Self::Plan => "Plan",
            Self::Layers => "Layers",
            Self::Samples => "Samples",
            Self::Events => "Events",
        }
    }

    /// Whether it draws something over the steps of the run.
    pub fn is_chart(self) -> bool {
        matches!(self, Self::Loss | Self::Throughput | Self::Rate | Self::Memory | Self::Latency)
    }

    pub fn next(self) -> Self {
        Self::ALL[(self.index() + 1) % Self::ALL.len()]
    }

    pub fn previous(self) -> Self {
        Self::ALL[(self.index() + Self::ALL.len() - 1) % Self::ALL.len()]
    }
}

/// Focus, zoom, overlays.
#[derive(Debug, Clone, Default)]
pub struct Ui {
    /// The pane that keys scroll and enlarge.
    pub focus: Pane,
    /// Whether the focused pane takes all the room.
    pub maximised: bool,
    /// The open dialog.
    pub overlay: Option<Overlay>,
    /// Shared by all charts over steps.
    pub zoom: Zoom,
    /// Whether loss and gradient norm have logarithmic axes.
    pub log_scale: bool,
    /// Lines that the focused list is scrolled back by.
    pub scroll: usize,
    /// Time since the dashboard was opened.
    pub clock: Duration,
    /// A line for the footer, and when it was said.
    pub said: Option<(String, Duration)>,
    /// Where a replay is; none for a run that goes on.
    pub slider: Option<Slider>,
}

impl Ui {
    /// Puts a line into the footer, for a few seconds.
    pub fn say(&mut self, text: impl Into<String>) {
        self.said = Some((text.into(), self.clock));
    }

    /// What the footer says instead of the keys.
    pub fn message(&self) -> Option<&str> {
        self.said.as_ref().map(|(text, _)| text.as_str())
    }

    /// Moves the dashboard's clock; messages are forgotten after a while.
    pub fn tick(&mut self, clock: Duration) {
        self.clock = clock;
        self.said.take_if(|(_, said)| clock.saturating_sub(*said) > MESSAGE_TIME);
    }

    /// Focuses a pane; what was scrolled in another one is forgotten.
    pub fn focus_on(&mut self, pane: Pane) {
        if self.focus != pane {
            self.focus = pane;
            self.scroll = 0;
        }
    }
}
