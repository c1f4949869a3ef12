//! A run of the past, forwards and backwards.

use std::time::Duration;

use super::feed::{Feed, RunClock};
use super::input::Slider;
use super::state::{Run, Session, State};
use crate::error::Result;
use crate::metrics::{Event, MetricsFile};

/// Steps that are kept; of longer runs every second, fourth, eighth and so on.
const STEPS: usize = 1 << 16;

/// Events with their times, in bounded memory.
#[derive(Debug, Clone, Default)]
pub struct Recording {
    events: Vec<(Duration, Event)>,
    clock: RunClock,
    steps: usize,
    /// Every 2^doublings-th step is kept.
    doublings: u32,
    /// Steps seen.
    seen: usize,
}

impl Recording {
    /// Reads all that a file holds.
    ///
    /// # Errors
    /// A data error if the file cannot be read.
    pub fn read(file: &mut MetricsFile) -> Result<Self> {
        let (mut recording, mut events) = (Self::default(), Vec::new());
        loop {
            if file.poll(&mut events)? {
                recording = Self::default();
            }
            events.drain(..).for_each(|event| recording.push(event));
            if !file.behind() {
                return Ok(recording);
            }
        }
    }

    /// Adds what happened next.
    pub fn push(&mut self, event: Event) {
        let at = self.clock.time(&event);
        if matches!(event, Event::Step(_)) {
            self.seen += 1;
            if self.seen.trailing_zeros() < self.doublings {
                return;
            }
            self.steps += 1;
        }
        self.events.push((at, event));
        if self.steps > STEPS {
            self.doublings += 1;
            let mut keep = true;
            self.events.retain(|(_, event)| {
                keep ^= matches!(event, Event::Step(_));
                keep || !matches!(event, Event::Step(_))
            });
            self.steps = self.events.iter().filter(|(_, event)| matches!(event, Event::Step(_))).count();
        }
    }

    /// The time of the last event.
    pub fn length(&self) -> Duration {
        self.events.last().map_or(Duration::ZERO, |&(at, _)| at)
    }

    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The run as it was at its end.
    pub fn run(&self) -> Run {
        let mut run = Run::default();
        self.events.iter().for_each(|(at, event)| run.apply(event, *at));
        run
    }

    /// How the run ended, if its file says so.
    pub fn ended(&self) -> bool {
        self.run().status.ended()
    }
}

/// Plays a recording to where the slider is.
pub struct Player {
    recording: Recording,
    /// Events that the state has seen.
    applied: usize,
    before: Duration,
}

impl Player {
    /// Starts before the first event.
    pub fn new(recording: Recording) -> Self {
        Self { recording, applied: 0, before: Duration::ZERO }
    }

    /// A state at the recording's end.
    pub fn state(&self) -> State {
        let mut state = State::new(Session::Replay);
        state.ui.slider = Some(Slider::at_end(self.recording.length()));
        state
    }
}

impl Feed for Player {
    fn update(&mut self, state: &mut State, now: Duration) -> Result<bool> {
        let passed = now.saturating_sub(self.before);
        self.before = now;
        let Some(slider) = &mut state.ui.slider else { return Ok(false) };
        slider.advance(passed);
        let position = slider.position;
        let events = &self.recording.events;
        let due = events.partition_point(|&(at, _)| at <= position);
        let changed = due != self.applied || state.now != position;
        if due < self.applied {
            state.run = Run::default();
            self.applied = 0;
        }
        for (at, event) in &events[self.applied..due] {
            state.run.apply(event, *at);
        }
        self.applied = due;
        state.tick(position);
        Ok(changed)
    }

    fn ended(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::testing;

    #[test]
    fn any_place_is_what_the_run_was_then() {
        let mut recording = Recording::default();
        let events = testing::events(900, 900);
        events.iter().for_each(|(_, event)| recording.push(event.clone()));
        let mut player = Player::new(recording);
        let mut state = player.state();
        player.update(&mut state, Duration::ZERO).unwrap();
        let whole = testing::screen(&state, (80, 24));
        assert_eq!(state.run.step, 900);
        for part in [0.5, 0.1, 0.9] {
            let length = player.recording.length();
            state.ui.slider.as_mut().unwrap().position = length.mul_f64(part);
            player.update(&mut state, Duration::from_secs(1)).unwrap();
            assert_eq!(state.run.step, (900.0 * part) as usize);
        }
        state.ui.slider = Some(Slider::at_end(player.recording.length()));
        player.update(&mut state, Duration::from_secs(1)).unwrap();
        assert_eq!(testing::screen(&state, (80, 24)), whole);
    }

    #[test]
    fn playing_moves_with_the_clock_and_stops_at_the_end() {
        let mut recording = Recording::default();
        testing::events(100, 100).into_iter().for_each(|(_, event)| recording.push(event));
        let mut player = Player::new(recording);
        let mut state = player.state();
        state.ui.slider.as_mut().unwrap().toggle();
        player.update(&mut state, Duration::ZERO).unwrap();
        assert_eq!(state.run.step, 0);
        player.update(&mut state, Duration::from_secs(1)).unwrap();
        assert_eq!(state.now, Duration::from_secs(10));
        player.update(&mut state, Duration::from_secs(99)).unwrap();
        assert_eq!((state.run.step, state.ui.slider.unwrap().playing), (100, false));
    }

    #[test]
    fn long_runs_are_thinned() {
        let mut recording = Recording::default();
        recording.push(testing::started(400_000));
        (1..=400_000).for_each(|step| recording.push(Event::Step(testing::step(step, 400_000))));
        assert!(recording.events.len() <= STEPS + 2);
        let run = recording.run();
        assert!(run.step > 399_990, "{}", run.step);
    }
}
