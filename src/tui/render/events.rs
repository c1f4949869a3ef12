//! The event log.

use ratatui::layout::Rect;

use super::Canvas;
use crate::tui::draw::text::{width, wrap};
use crate::tui::format;
use crate::tui::state::{Entry, State, Weight};
use crate::tui::theme::Role;

/// Rows that one entry may take.
const ROWS: usize = 6;
/// Columns below which the time is left out.
const NARROW: usize = 56;

/// The colour of a weight.
pub fn role(weight: Weight) -> Role {
    match weight {
        Weight::Plain => Role::Text,
        Weight::Good => Role::Good,
        Weight::Warning => Role::Warning,
        Weight::Bad => Role::Bad,
    }
}

/// What tells weights apart without colours.
fn sign(weight: Weight) -> &'static str {
    match weight {
        Weight::Plain => "·",
        Weight::Good => "✓",
        Weight::Warning => "!",
        Weight::Bad => "✗",
    }
}

/// The latest at the bottom; scrolled back, an earlier one is there.
pub fn draw(canvas: &mut Canvas, area: Rect, state: &State, focused: bool) {
    let log = &state.run.log;
    if log.entries.is_empty() {
        canvas.put(area, 0, 0, "nothing happened yet", Role::Dim);
        return;
    }
    let scroll = if focused { state.ui.scroll } else { 0 };
    let shown = log.entries.iter().rev().skip(scroll);
    let mut blocks = Vec::new();
    let mut free = usize::from(area.height);
    for entry in shown {
        let lines = lines(entry, usize::from(area.width));
        if lines.len() > free {
            break;
        }
        free -= lines.len();
        blocks.push((entry, lines));
    }
    let mut y = 0;
    for (entry, lines) in blocks.into_iter().rev() {
        for (index, line) in lines.iter().enumerate() {
            let prefix = prefix(entry, usize::from(area.width));
            let x = width(&prefix);
            if index == 0 {
                canvas.put(area, 0, y, &prefix, Role::Dim);
                canvas.put(area, x - 2, y, sign(entry.weight), role(entry.weight));
            }
            canvas.put(area, x, y, line, role(entry.weight));
            y += 1;
        }
    }
}

/// When it happened; the last two columns are for the sign.
fn prefix(entry: &Entry, wide: usize) -> String {
    let step = format::count(entry.step);
    if wide < NARROW { format!("{step:>6}   ") } else { format!("{} {step:>6}   ", format::clock(entry.at)) }
}

/// The text of an entry, broken to fit beside its time.
fn lines(entry: &Entry, wide: usize) -> Vec<String> {
    let room = wide.saturating_sub(width(&prefix(entry, wide))).max(1);
    let lines = wrap(&entry.text, room, ROWS);
    if lines.is_empty() { vec![String::new()] } else { lines }
}
