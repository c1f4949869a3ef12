//! The full-screen dashboard: `State::apply(event)` -> view -> render, and keys back to commands.
//!
//! Everything but `terminal` and `feed` is pure: no clock, file or terminal is read. It knows nothing of training, only
//! the events and commands of `metrics`.

mod compare;
mod draw;
mod feed;
mod format;
mod input;
mod render;
mod replay;
mod screen;
mod state;
mod svg;
mod terminal;
mod theme;
mod view;

pub use compare::Comparison;
pub use feed::{Channel, Feed, RunClock, Tail};
pub use input::{Overlay, Pane, Slider, Ui, Zoom};
pub use render::render;
pub use replay::{Player, Recording};
pub use screen::{Dashboard, Screen};
pub use state::{Run, Session, State, Status};
pub use svg::{still, svg};
pub use terminal::{Exit, Open, Options, check_terminal, restore, show};
pub use theme::{Background, Theme};

#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod snapshot_tests;
#[cfg(test)]
mod testing;
