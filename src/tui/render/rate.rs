//! Learning rate and gradient norm.

use ratatui::layout::Rect;

use super::Canvas;
use super::canvas::{below, beside, split_at};
use crate::tui::draw::plot::Chart;
use crate::tui::format;
use crate::tui::state::State;
use crate::tui::theme::Role;
use crate::tui::view;

/// Rows that two charts above each other need.
const TALL: u16 = 12;

/// Two charts above each other, or beside each other where there are few rows.
pub fn draw(canvas: &mut Canvas, area: Rect, state: &State) {
    let (first, second) = if area.height >= TALL || area.width < 60 {
        split_at(area, usize::from(area.height).div_ceil(2))
    } else {
        beside(area, 0.5, 2)
    };
    let last = state.run.last.as_ref();
    let scale = state.run.learning_rate_scale;
    let scaled = if scale == 1.0 { String::new() } else { format!("  x {} by you", format::number(scale)) };
    let rate = last.map(|last| format::number(last.learning_rate) + &scaled);
    part(canvas, first, ("learning rate", rate, Role::Rate), &view::learning_rate(state));
    let norm = last.map(|last| format::number(last.grad_norm));
    part(canvas, second, ("gradient norm", norm, Role::Norm), &view::gradient_norm(state));
}

/// A name with the latest value, and a chart.
fn part(canvas: &mut Canvas, area: Rect, (name, value, role): (&str, Option<String>, Role), chart: &Chart) {
    let name = [canvas.span("━ ", role), canvas.span(name, Role::Dim)];
    let x = canvas.put_spans(area, 0, 0, &name);
    canvas.put(area, x + 1, 0, &value.unwrap_or_default(), role);
    canvas.plot(below(area, 1), chart);
}
