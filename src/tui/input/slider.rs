//! Where a replay is.

use std::time::Duration;

/// Speeds that a replay can run at, in multiples of the run's own.
const SPEEDS: [u32; 10] = [1, 2, 5, 10, 20, 50, 100, 500, 1000, 10_000];
/// Parts of the whole that one key press moves by.
const PARTS: u32 = 50;

/// A place in a run of the past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slider {
    /// From the start of the run.
    pub position: Duration,
    /// The time of the last event.
    pub length: Duration,
    /// Whether the position moves with the clock.
    pub playing: bool,
    speed: usize,
}

impl Slider {
    /// At the end, standing still: a finished run is first seen as a whole.
    pub fn at_end(length: Duration) -> Self {
        Self { position: length, length, playing: false, speed: 3 }
    }

    /// Seconds of the run that go by in one.
    pub fn speed(&self) -> u32 {
        SPEEDS[self.speed.min(SPEEDS.len() - 1)]
    }

    pub fn faster(&mut self) {
        self.speed = (self.speed + 1).min(SPEEDS.len() - 1);
    }

    pub fn slower(&mut self) {
        self.speed = self.speed.saturating_sub(1);
    }

    /// Moves towards the start by a fiftieth of the run.
    pub fn back(&mut self) {
        self.position = self.position.saturating_sub(self.length / PARTS);
    }

    /// Moves towards the end by as much.
    pub fn forth(&mut self) {
        self.position = self.position.saturating_add(self.length / PARTS).min(self.length);
    }

    /// Starts or stops; from the end it starts over.
    pub fn toggle(&mut self) {
        self.playing = !self.playing;
        if self.playing && self.position >= self.length {
            self.position = Duration::ZERO;
        }
    }

    /// Lets wall time go by.
    pub fn advance(&mut self, passed: Duration) {
        if self.playing {
            self.position =
                self.position.saturating_add(passed.saturating_mul(self.speed())).min(self.length);
            self.playing = self.position < self.length;
        }
    }

    /// From 0 to 1.
    pub fn part(&self) -> f64 {
        let length = self.length.as_secs_f64();
        if length > 0.0 { (self.position.as_secs_f64() / length).clamp(0.0, 1.0) } else { 1.0 }
    }
}
