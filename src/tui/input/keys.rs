//! The keys of the panes.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::{Overlay, Pane, TextField};
use crate::metrics::Command;
use crate::tui::state::{Session, State, Status};

/// Part of the view that a key moves by.
const PAN: f64 = 0.25;
/// Lines that a page key scrolls by.
const PAGE: usize = 10;

impl State {
    /// Handles a key; what it asks of the run is returned.
    pub fn key(&mut self, key: KeyEvent) -> Option<Command> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        let command = match self.ui.overlay.take() {
            Some(overlay) => self.overlay_key(overlay, key),
            None => self.pane_key(key),
        };
        if let Some(text) = command.as_ref().and_then(asked) {
            self.ui.say(text);
        }
        command
    }

    /// Text from the terminal's clipboard: only a prompt takes it.
    pub fn paste(&mut self, text: &str) {
        if let Some(Overlay::Prompt(field)) = &mut self.ui.overlay {
            field.insert(text);
        }
    }

    fn pane_key(&mut self, key: KeyEvent) -> Option<Command> {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => self.quit(),
            _ if control || key.modifiers.contains(KeyModifiers::ALT) => None,
            KeyCode::Char('q') => self.quit(),
            KeyCode::Char(letter @ (' ' | 'p' | 'c' | 'e' | 's' | 'x' | 'r')) => self.run_key(letter),
            _ => {
                if self.ui.slider.is_none() || !self.slider_key(key.code) {
                    self.look_key(key.code);
                }
                None
            }
        }
    }

    /// Why the run cannot be steered; none if it can.
    pub fn refusal(&self) -> Option<String> {
        match &self.session {
            Session::Replay => Some("this is a replay: there is no run to steer".to_owned()),
            Session::ReadOnly { reason } => Some(format!("read-only: {reason}")),
            Session::Live { .. } if self.run.status.ended() => Some("the run has ended".to_owned()),
            Session::Live { .. } => None,
        }
    }

    /// A run that goes on here is not left without asking.
    fn quit(&mut self) -> Option<Command> {
        if self.refusal().is_some() {
            return Some(Command::Quit { stop: false });
        }
        self.ui.overlay = Some(Overlay::Quit);
        None
    }

    fn run_key(&mut self, letter: char) -> Option<Command> {
        if let (' ' | 'p', Some(slider)) = (letter, &mut self.ui.slider) {
            slider.toggle();
            return None;
        }
        if let Some(reason) = self.refusal() {
            self.ui.say(reason);
            return None;
        }
        let overlay = match letter {
            'c' => return Some(Command::Checkpoint),
            'e' => return Some(Command::Evaluate),
            's' => Overlay::Prompt(TextField::default()),
            'x' => Overlay::Stop,
            'r' => Overlay::LearningRate(2),
            _ if self.run.status == Status::Paused => return Some(Command::Resume),
            _ => return Some(Command::Pause),
        };
        self.ui.overlay = Some(overlay);
        None
    }

    /// Moves in a replay; false for keys that do something else.
    fn slider_key(&mut self, code: KeyCode) -> bool {
        let Some(slider) = &mut self.ui.slider else { return false };
        match code {
            KeyCode::Left => slider.back(),
            KeyCode::Right => slider.forth(),
            KeyCode::Home => slider.position = std::time::Duration::ZERO,
            KeyCode::End => slider.position = slider.length,
            KeyCode::Char('<' | ',') => slider.slower(),
            KeyCode::Char('>' | '.') => slider.faster(),
            _ => return false,
        }
        true
    }

    /// Focus, zoom, scrolling.
    fn look_key(&mut self, code: KeyCode) {
        let extent = self.run.extent();
        let ui = &mut self.ui;
        match code {
            KeyCode::Char('?') | KeyCode::F(1) => ui.overlay = Some(Overlay::Help),
            KeyCode::Tab => ui.focus_on(ui.focus.next()),
            KeyCode::BackTab => ui.focus_on(ui.focus.previous()),
            KeyCode::Char(digit @ '1'..='9') => ui.focus_on(Pane::ALL[digit as usize - '1' as usize]),
            KeyCode::Enter => ui.maximised = !ui.maximised,
            KeyCode::Esc => ui.maximised = false,
            KeyCode::Char('+' | '=') => ui.zoom.closer(extent),
            KeyCode::Char('-' | '_') => ui.zoom.wider(),
            KeyCode::Char('0') => ui.zoom.reset(),
            KeyCode::Left | KeyCode::Char('h') => ui.zoom.pan(-PAN, extent),
            KeyCode::Right | KeyCode::Char('l') => ui.zoom.pan(PAN, extent),
            KeyCode::Char('y') => ui.log_scale = !ui.log_scale,
            KeyCode::Up | KeyCode::Char('k') => self.scroll(true, 1),
            KeyCode::Down | KeyCode::Char('j') => self.scroll(false, 1),
            KeyCode::PageUp => self.scroll(true, PAGE),
            KeyCode::PageDown => self.scroll(false, PAGE),
            _ => {}
        }
    }

    /// Scrolls the focused list. The event log starts at its end, others at their start.
    pub(super) fn scroll(&mut self, up: bool, lines: usize) {
        let (most, from_end) = match self.ui.focus {
            Pane::Events => (self.run.log.entries.len(), true),
            Pane::Samples => (self.run.log.samples.len(), false),
            Pane::Plan => (self.run.plans.plans.len(), false),
            Pane::Latency => (self.run.split.kinds.len(), false),
            _ => (0, false),
        };
        let scrolled = self.ui.scroll;
        self.ui.scroll = if up == from_end { scrolled + lines } else { scrolled.saturating_sub(lines) };
        self.ui.scroll = self.ui.scroll.min(most.saturating_sub(1));
    }
}

/// What the footer says until the run answers.
fn asked(command: &Command) -> Option<String> {
    let text = match command {
        Command::Pause => "pausing after this step",
        Command::Resume => "resuming",
        Command::Checkpoint => "saving a checkpoint after this step",
        Command::Evaluate => "evaluating after this step",
        Command::Sample(_) => "sampling after this step: the answer comes into Samples",
        Command::StopKeepBest => "stopping after this step; the best checkpoint is kept",
        Command::Quit { stop: true } => "stopping after this step, then saving",
        Command::ScaleLearningRate(factor) => {
            return Some(format!("multiplying the learning rate with {factor} from the next step on"));
        }
        Command::Quit { stop: false } | Command::Detach => return None,
    };
    Some(text.to_owned())
}

#[cfg(test)]
mod tests;
