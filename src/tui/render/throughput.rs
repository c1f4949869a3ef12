//! Tokens per second.

use ratatui::layout::Rect;

use super::Canvas;
use super::canvas::below;
use crate::tui::format;
use crate::tui::state::State;
use crate::tui::theme::Role;
use crate::tui::view;

/// Steps that the rates are averaged over.
const WINDOW: usize = 20;

/// Rates over the last steps, and their curves.
pub fn draw(canvas: &mut Canvas, area: Rect, state: &State) {
    let mut groups = Vec::new();
    if let Some((all, supervised)) = state.run.throughput.over(WINDOW) {
        for (name, rate, role) in [("all", all, Role::Tokens), ("supervised", supervised, Role::Supervised)] {
            let name = canvas.span(format!(" {name} "), Role::Dim);
            groups.push(vec![canvas.span("━", role), name, canvas.span(format::compact(rate), role)]);
        }
        groups.push(vec![canvas.span("tokens/s", Role::Dim)]);
    }
    let rows = canvas.flow(area, 0, 1, &groups);
    canvas.plot(below(area, rows), &view::throughput(state));
}
