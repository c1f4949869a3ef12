//! What is shown where there is no room for panes.

use ratatui::layout::Rect;

use super::Canvas;
use crate::tui::format;
use crate::tui::state::State;
use crate::tui::theme::Role;
use crate::tui::view::figures;

/// The step and the key figures, one a row; what does not fit is left out.
pub fn draw(canvas: &mut Canvas, area: Rect, state: &State) {
    let run = &state.run;
    let step = format!("step {}/{}", format::count(run.step), format::count(run.about.total_steps));
    canvas.put(area, 0, 0, &step, Role::Text);
    if let Some((weight, text)) = run.outcome() {
        canvas.put(area, 0, 1, &text, super::events::role(weight));
        return;
    }
    for (row, figure) in figures(state).into_iter().enumerate() {
        let x = canvas.put(area, 0, row + 1, figure.name, Role::Dim);
        canvas.put(area, x + 1, row + 1, &figure.value, figure.role);
    }
}
