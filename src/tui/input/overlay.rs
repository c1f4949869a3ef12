//! Dialogs over the panes, and their keys.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::TextField;
use crate::metrics::Command;
use crate::tui::state::{Session, State};

/// What the learning rate can be multiplied with at once.
pub const FACTORS: [f64; 8] = [0.1, 0.25, 0.5, 0.8, 1.25, 2.0, 4.0, 10.0];

/// At most one is open; it takes all keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Overlay {
    Help,
    /// How to leave a run that goes on.
    Quit,
    /// Whether to end the run early.
    Stop,
    /// A prompt to continue.
    Prompt(TextField),
    /// An index into `FACTORS`.
    LearningRate(usize),
}

impl State {
    /// Hands a key to the open dialog.
    pub(super) fn overlay_key(&mut self, overlay: Overlay, key: KeyEvent) -> Option<Command> {
        if key.code == KeyCode::Esc {
            return None;
        }
        match overlay {
            Overlay::Help => None,
            Overlay::Quit => self.quit_key(key),
            Overlay::Stop => match key.code {
                KeyCode::Char('y' | 'x') | KeyCode::Enter => Some(Command::StopKeepBest),
                KeyCode::Char('n' | 'q') => None,
                _ => self.keep_open(Overlay::Stop),
            },
            Overlay::Prompt(field) => self.prompt_key(field, key),
            Overlay::LearningRate(chosen) => self.learning_rate_key(chosen, key),
        }
    }

    fn keep_open(&mut self, overlay: Overlay) -> Option<Command> {
        self.ui.overlay = Some(overlay);
        None
    }

    fn quit_key(&mut self, key: KeyEvent) -> Option<Command> {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => Some(Command::Quit { stop: true }),
            KeyCode::Char('s') | KeyCode::Enter => Some(Command::Quit { stop: true }),
            KeyCode::Char('d') => match self.no_detaching() {
                None => Some(Command::Detach),
                Some(reason) => {
                    self.ui.say(reason);
                    self.keep_open(Overlay::Quit)
                }
            },
            KeyCode::Char('n' | 'q') => None,
            _ => self.keep_open(Overlay::Quit),
        }
    }

    /// Why the run cannot go on without the dashboard; none if it can.
    pub fn no_detaching(&self) -> Option<&'static str> {
        match self.session {
            Session::Live { detachable: false } => Some("to detach, start the run with --detach"),
            _ => None,
        }
    }

    fn prompt_key(&mut self, mut field: TextField, key: KeyEvent) -> Option<Command> {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Enter if !field.text().trim().is_empty() => {
                return Some(Command::Sample(field.text().trim().to_owned()));
            }
            KeyCode::Char('c') if control => return None,
            KeyCode::Char('u') if control => field.clear(),
            KeyCode::Char('a') if control => field.home(),
            KeyCode::Char('e') if control => field.end(),
            KeyCode::Char(letter) if !control => field.insert(letter.encode_utf8(&mut [0; 4])),
            KeyCode::Backspace => field.backspace(),
            KeyCode::Delete => field.delete(),
            KeyCode::Left => field.left(),
            KeyCode::Right => field.right(),
            KeyCode::Home => field.home(),
            KeyCode::End => field.end(),
            _ => {}
        }
        self.keep_open(Overlay::Prompt(field))
    }

    fn learning_rate_key(&mut self, chosen: usize, key: KeyEvent) -> Option<Command> {
        let chosen = match key.code {
            KeyCode::Enter => return FACTORS.get(chosen).copied().map(Command::ScaleLearningRate),
            KeyCode::Char('q' | 'r') => return None,
            KeyCode::Up | KeyCode::Right | KeyCode::Char('k' | '+' | '=') => {
                (chosen + 1).min(FACTORS.len() - 1)
            }
            KeyCode::Down | KeyCode::Left | KeyCode::Char('j' | '-') => chosen.saturating_sub(1),
            _ => chosen,
        };
        self.keep_open(Overlay::LearningRate(chosen))
    }
}
