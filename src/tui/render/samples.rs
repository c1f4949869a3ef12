//! What the model says to fixed prompts, and to those that were typed in.

use ratatui::layout::Rect;

use super::Canvas;
use crate::tui::draw::text::wrap;
use crate::tui::format;
use crate::tui::state::State;
use crate::tui::theme::Role;

/// Rows of a prompt and of an answer, at most.
const PROMPT_ROWS: usize = 2;
const ANSWER_ROWS: usize = 8;

/// The latest on top; scrolled, an earlier one is there.
pub fn draw(canvas: &mut Canvas, area: Rect, state: &State, focused: bool) {
    let samples = &state.run.log.samples;
    if samples.is_empty() {
        canvas.put(area, 0, 0, "no samples yet: press s and type a prompt,", Role::Dim);
        canvas.put(area, 0, 1, "or list train.sample_prompts", Role::Dim);
        return;
    }
    let scroll = if focused { state.ui.scroll } else { 0 };
    let (wide, high) = (usize::from(area.width), usize::from(area.height));
    let mut y = 0;
    for sample in samples.iter().rev().skip(scroll) {
        let step = format!("step {}", format::count(sample.step));
        if y >= high {
            return;
        }
        canvas.put(area, 0, y, &step, Role::Dim);
        let start = step.len() + 1;
        for line in wrap(&format!("> {}", sample.prompt), wide.saturating_sub(start), PROMPT_ROWS) {
            canvas.put(area, start, y, &line, Role::Key);
            y += 1;
        }
        for line in wrap(sample.text.trim(), wide.saturating_sub(2), ANSWER_ROWS) {
            canvas.put(area, 2, y, &line, Role::Text);
            y += 1;
        }
        y += 1;
    }
}
