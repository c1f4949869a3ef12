//! Dialogs in the middle of the screen.

use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

use super::{Canvas, frame, help};
use crate::tui::draw::text::{Span, clean, fit, width};
use crate::tui::format;
use crate::tui::input::{FACTORS, Overlay, TextField};
use crate::tui::state::State;
use crate::tui::theme::Role;

/// Draws the open dialog, and everything behind it dimmer.
pub fn draw(canvas: &mut Canvas, area: Rect, state: &State) {
    let Some(overlay) = &state.ui.overlay else { return };
    canvas.buffer.set_style(area, Style::new().add_modifier(Modifier::DIM).remove_modifier(Modifier::BOLD));
    match overlay {
        Overlay::Help => {
            let inner = dialog(canvas, area, help::SIZE, "Keys");
            help::draw(canvas, inner, state);
        }
        Overlay::Quit => {
            let inner = dialog(canvas, area, (60, 9), "Leave the run?");
            quit(canvas, inner, state);
        }
        Overlay::Stop => {
            let inner = dialog(canvas, area, (60, 7), "End the run early?");
            stop(canvas, inner, state);
        }
        Overlay::Prompt(field) => {
            let inner = dialog(canvas, area, (72, 7), "Sample a prompt");
            prompt(canvas, inner, field);
        }
        Overlay::LearningRate(chosen) => {
            let inner = dialog(canvas, area, (60, 9), "Change the learning rate");
            learning_rate(canvas, inner, state, *chosen);
        }
    }
}

/// Clears a box in the middle, frames it, and returns what is inside.
fn dialog(canvas: &mut Canvas, area: Rect, (wide, high): (u16, u16), title: &str) -> Rect {
    let (wide, high) = (wide.min(area.width), (high + 2).min(area.height));
    let place = Rect {
        x: area.x + (area.width - wide) / 2,
        y: area.y + (area.height - high) / 2,
        width: wide,
        height: high,
    };
    // A wide letter that begins left of the box would reach into it.
    let cleared = Rect { x: place.x.saturating_sub(1), width: place.width + 1, ..place }.intersection(area);
    for position in cleared.positions() {
        if let Some(cell) = canvas.buffer.cell_mut(position)
            && (place.contains(position) || width(cell.symbol()) > 1)
        {
            cell.reset();
        }
    }
    frame(canvas, place, title, true)
}

/// A key and what it does.
fn choice(canvas: &Canvas, key: &str, what: &str) -> Vec<Span> {
    vec![canvas.span(format!("{key:>6}"), Role::Key), canvas.span(format!("  {what}"), Role::Text)]
}

/// How to leave a run that goes on.
fn quit(canvas: &mut Canvas, area: Rect, state: &State) {
    let step = format::count(state.run.step);
    let total = format::count(state.run.about.total_steps);
    canvas.put(area, 0, 1, &format!("step {step} of {total} is done."), Role::Text);
    let stop = choice(canvas, "s", "stop after this step and save everything");
    canvas.put_spans(area, 0, 3, &stop);
    let detach = choice(canvas, "d", "detach: close this, leave the run running");
    match state.no_detaching() {
        None => {
            canvas.put_spans(area, 0, 4, &detach);
        }
        Some(reason) => {
            let text: String = detach.into_iter().map(|(text, _)| text).collect();
            canvas.put(area, 0, 4, &text, Role::Dim);
            canvas.put(area, 8, 5, reason, Role::Dim);
        }
    }
    let back = choice(canvas, "esc", "back");
    canvas.put_spans(area, 0, 7, &back);
}

/// What an early end keeps.
fn stop(canvas: &mut Canvas, area: Rect, state: &State) {
    let best = match state.run.best {
        Some((step, loss)) => {
            let loss = format::number(loss);
            format!("The result is the best so far: {loss}, of step {}.", format::count(step))
        }
        None => "There was no evaluation: the result is the last step.".to_owned(),
    };
    canvas.put(area, 0, 1, &best, Role::Text);
    let yes = choice(canvas, "y", "stop after this step");
    canvas.put_spans(area, 0, 3, &yes);
    let back = choice(canvas, "esc", "back");
    canvas.put_spans(area, 0, 5, &back);
}

/// A line to type in; the text before the cursor scrolls.
fn prompt(canvas: &mut Canvas, area: Rect, field: &TextField) {
    canvas.put(area, 0, 1, "The model as it is after this step continues it.", Role::Dim);
    let room = usize::from(area.width).saturating_sub(4);
    let (before, after) = field.split();
    // The end of what stands before the cursor stays in view.
    let before = clean(before);
    let mut start = before.as_str();
    while width(start) > room * 3 / 4 {
        let mut letters = start.chars();
        letters.next();
        start = letters.as_str();
    }
    let x = canvas.put(area, 0, 3, "> ", Role::Key);
    let x = canvas.put(area, x, 3, start, Role::Text);
    let end = canvas.put(area, x, 3, "▏", Role::Focus);
    let left = (usize::from(area.width)).saturating_sub(end);
    canvas.put(area, end, 3, &fit(after, left), Role::Text);
    let keys = [choice(canvas, "enter", "sample"), choice(canvas, "esc", "back")].concat();
    canvas.put_spans(area, 0, 5, &keys);
}

/// The rate now and after the change, and the factors to choose from.
fn learning_rate(canvas: &mut Canvas, area: Rect, state: &State, chosen: usize) {
    let now = state.run.last.as_ref().map_or(f64::NAN, |last| last.learning_rate);
    let factor = FACTORS.get(chosen).copied().unwrap_or(1.0);
    let text = format!("{} now, {} from the next step on", format::number(now), format::number(now * factor));
    canvas.put(area, 0, 1, &text, Role::Text);
    canvas.put(area, 0, 2, "The schedule goes on, multiplied.", Role::Dim);
    let mut x = 0;
    for (index, factor) in FACTORS.iter().enumerate() {
        let (text, role) = if index == chosen {
            (format!("[x{factor}]"), Role::Focus)
        } else {
            (format!(" x{factor} "), Role::Dim)
        };
        x = canvas.put(area, x, 4, &text, role);
    }
    let first = [choice(canvas, "← →", "choose"), choice(canvas, "enter", "change")].concat();
    canvas.put_spans(area, 0, 6, &first);
    let back = choice(canvas, "esc", "back");
    canvas.put_spans(area, 0, 7, &back);
}
