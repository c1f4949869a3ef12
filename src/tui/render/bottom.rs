//! Summary, time slider and key hints.

use ratatui::layout::Rect;

use super::Canvas;
use crate::tui::format;
use crate::tui::state::{Session, State, Status};
use crate::tui::theme::Role;
use crate::tui::view::figures;

/// Key figures, for sizes that show one pane only.
pub fn summary(canvas: &mut Canvas, area: Rect, state: &State) {
    if area.is_empty() {
        return;
    }
    let area = Rect { x: area.x + 1, width: area.width.saturating_sub(2), ..area };
    let groups: Vec<_> = figures(state)
        .into_iter()
        .map(|figure| {
            let spark = if figure.spark.is_empty() { String::new() } else { format!(" {}", figure.spark) };
            let name = canvas.span(format!("{} ", figure.name), Role::Dim);
            vec![name, canvas.span(figure.value, figure.role), canvas.span(spark, figure.role)]
        })
        .collect();
    canvas.flow(area, 0, usize::from(area.height), &groups);
}

/// Where a replay is, and how fast it runs.
pub fn slider(canvas: &mut Canvas, area: Rect, state: &State) {
    let Some(slider) = state.ui.slider.as_ref().filter(|_| !area.is_empty()) else { return };
    let area = Rect { x: area.x + 1, width: area.width.saturating_sub(2), ..area };
    let sign = if slider.playing { "▶" } else { "‖" };
    let x = canvas.put(area, 0, 0, &format!("{sign} {} ", format::clock(slider.position)), Role::Key);
    let end = format!(" {}  x{}", format::clock(slider.length), slider.speed());
    let wide = usize::from(area.width).saturating_sub(x + end.len());
    canvas.meter(area, (x, 0), wide, slider.part(), Role::Focus);
    if wide > 0 {
        let knob = (slider.part() * (wide - 1) as f64).round() as usize;
        canvas.put(area, x + knob, 0, "●", Role::Focus);
    }
    canvas.put(area, x + wide, 0, &end, Role::Dim);
}

/// Keys that matter now, or the last message.
pub fn footer(canvas: &mut Canvas, area: Rect, state: &State) {
    if area.is_empty() {
        return;
    }
    let area = Rect { x: area.x + 1, width: area.width.saturating_sub(2), ..area };
    if let Some(message) = state.ui.message() {
        canvas.put(area, 0, 0, message, Role::Warning);
        return;
    }
    if let (Some((weight, text)), None) = (state.run.outcome(), &state.ui.slider) {
        let role = super::events::role(weight);
        let x = canvas.put(area, 0, 0, "q ", Role::Key);
        let x = canvas.put(area, x, 0, "close  ", Role::Text);
        canvas.put(area, x, 0, &text, role);
        return;
    }
    let groups: Vec<_> = hints(state)
        .into_iter()
        .map(|(key, what, possible)| {
            let role = if possible { Role::Text } else { Role::Dim };
            let key_role = if possible { Role::Key } else { Role::Dim };
            vec![canvas.span(key, key_role), canvas.span(format!(" {what}"), role)]
        })
        .collect();
    canvas.flow(area, 0, 1, &groups);
}

/// Keys, what they do, and whether they do it here.
fn hints(state: &State) -> Vec<(&'static str, &'static str, bool)> {
    if state.session == Session::Replay {
        return vec![
            ("?", "help", true),
            ("q", "close", true),
            ("space", "play", true),
            ("←→", "seek", true),
            ("<>", "speed", true),
            ("tab", "focus", true),
            ("enter", "enlarge", true),
            ("+-", "zoom", true),
            ("hl", "pan", true),
        ];
    }
    let steers = state.refusal().is_none();
    let pause = if state.run.status == Status::Paused { "resume" } else { "pause" };
    vec![
        ("?", "help", true),
        ("q", "quit", true),
        ("space", pause, steers),
        ("c", "checkpoint", steers),
        ("e", "evaluate", steers),
        ("s", "sample", steers),
        ("r", "rate", steers),
        ("tab", "focus", true),
        ("+-", "zoom", true),
        ("x", "stop", steers),
        ("enter", "enlarge", true),
        ("←→", "pan", true),
        ("y", "log scale", true),
    ]
}
