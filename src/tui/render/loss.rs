//! Training and validation loss.

use ratatui::layout::Rect;

use super::Canvas;
use super::canvas::below;
use crate::tui::format;
use crate::tui::state::State;
use crate::tui::theme::Role;
use crate::tui::view;

/// A legend with the latest values, and the curves.
pub fn draw(canvas: &mut Canvas, area: Rect, state: &State) {
    let run = &state.run;
    let mut groups = Vec::new();
    let mut legend = |sign: &str, name: &str, value: Option<String>, role: Role| {
        if let Some(value) = value {
            let name = canvas.span(format!(" {name} "), Role::Dim);
            groups.push(vec![canvas.span(sign, role), name, canvas.span(value, role)]);
        }
    };
    legend("━", "smooth", run.smoothed.last().map(|(_, loss)| format::number(loss)), Role::Loss);
    let last = run.last.as_ref().map(|last| format::number(last.loss));
    legend("⣿", "raw", last, Role::Raw);
    let evaluation = run.evaluation.as_ref().map(|report| format::number(report.eval_loss));
    legend("◆", "validation", evaluation, Role::Validation);
    let best = run.best.map(|(step, loss)| format!("{} at {}", format::number(loss), format::count(step)));
    legend("★", "best", best, Role::Best);
    let perplexity = run.evaluation.as_ref().map(|report| format::number(report.perplexity));
    legend(" ", "perplexity", perplexity, Role::Text);
    let odd = (run.not_finite > 0).then(|| run.not_finite.to_string());
    legend("!", "not a number", odd, Role::Bad);
    let rows = canvas.flow(area, 0, 1, &groups);
    canvas.plot(below(area, rows), &view::loss(state));
}
