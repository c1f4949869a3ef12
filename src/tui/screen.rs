//! What fills the terminal: brought up to date, drawn, and given keys.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::crossterm::event::Event as Input;
use ratatui::layout::Rect;

use super::feed::Feed;
use super::render;
use super::state::State;
use super::theme::Theme;
use crate::error::Result;
use crate::metrics::Command;

/// Something that a terminal shows.
pub trait Screen {
    /// Takes in what happened; `now` is the time since it was opened. Says whether it looks different.
    ///
    /// # Errors
    /// A data error if what it shows cannot be read any more.
    fn update(&mut self, now: Duration) -> Result<bool>;

    fn draw(&self, theme: Theme, buffer: &mut Buffer);

    /// Takes a key, a click or a pasted text on a terminal of this size; what is asked of the run is returned.
    fn input(&mut self, input: Input, area: Rect) -> Option<Command>;

    /// Whether nothing more will happen.
    fn ended(&self) -> bool;
}

/// One run.
pub struct Dashboard<F> {
    pub state: State,
    feed: F,
}

impl<F: Feed> Dashboard<F> {
    /// Shows `state`, and keeps it up to date from `feed`.
    pub fn new(state: State, feed: F) -> Self {
        Self { state, feed }
    }
}

impl<F: Feed> Screen for Dashboard<F> {
    fn update(&mut self, now: Duration) -> Result<bool> {
        let (second, said) = (self.state.now.as_secs(), self.state.ui.message().is_some());
        self.state.ui.tick(now);
        let changed = self.feed.update(&mut self.state, now)?;
        let ticked = self.state.now.as_secs() != second || self.state.ui.message().is_some() != said;
        Ok(changed || ticked)
    }

    fn draw(&self, theme: Theme, buffer: &mut Buffer) {
        render(&self.state, theme, buffer);
    }

    fn input(&mut self, input: Input, area: Rect) -> Option<Command> {
        match input {
            Input::Key(key) => return self.state.key(key),
            Input::Mouse(mouse) => self.state.mouse(mouse, area),
            Input::Paste(text) => self.state.paste(&text),
            Input::Resize(..) | Input::FocusGained | Input::FocusLost => {}
        }
        None
    }

    fn ended(&self) -> bool {
        self.feed.ended()
    }
}
