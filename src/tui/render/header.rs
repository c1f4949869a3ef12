//! Which run it is and how far it got; tabs.

use ratatui::layout::Rect;

use super::Canvas;
use crate::tui::draw::text::{Span, fit, width};
use crate::tui::format;
use crate::tui::input::Pane;
use crate::tui::state::{Session, State, Status};
use crate::tui::theme::Role;

/// Columns of the progress bar, at least.
const SHORTEST_BAR: usize = 10;

/// Draws two rows: the run and its state, and its progress.
pub fn draw(canvas: &mut Canvas, area: Rect, state: &State) {
    let area = Rect { x: area.x + 1, width: area.width.saturating_sub(2), ..area };
    let status = status(canvas, state);
    let room = usize::from(area.width).saturating_sub(spans_width(&status) + 2);
    let name = canvas.put(area, 0, 0, "lazytune", Role::Key);
    let about = &state.run.about;
    let parts = [&about.model, &about.device, &about.run];
    let parts: Vec<&str> = parts.into_iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
    let waiting = state.run.status == Status::Waiting;
    let about = if waiting { "waiting for the run to start".to_owned() } else { parts.join(" · ") };
    canvas.put(area, name + 2, 0, &fit(&about, room.saturating_sub(name + 2)), Role::Text);
    canvas.put_right(area, 0, name, &status);
    progress(canvas, area, state);
}

fn spans_width(spans: &[Span]) -> usize {
    spans.iter().map(|(text, _)| width(text)).sum()
}

/// What the run is doing, and the time.
fn status(canvas: &Canvas, state: &State) -> Vec<Span> {
    let silence = state.silence().map(|silence| format::seconds(silence.as_secs_f64()));
    let (text, role) = match (&state.run.status, silence) {
        (Status::Running, Some(silence)) => (format!("○ silent for {silence}"), Role::Warning),
        (Status::Waiting, _) => ("○ waiting".to_owned(), Role::Dim),
        (Status::Running, None) => ("● running".to_owned(), Role::Good),
        (Status::Paused, _) => ("‖ paused".to_owned(), Role::Warning),
        (Status::Finished { .. }, _) => ("✓ finished".to_owned(), Role::Good),
        (Status::Failed { .. }, _) => ("✗ failed".to_owned(), Role::Bad),
    };
    let watching = match state.session {
        Session::Replay => "replay  ",
        Session::ReadOnly { .. } => "read-only  ",
        Session::Live { .. } => "",
    };
    let clock = format!("  {}", format::clock(state.now));
    vec![canvas.span(watching, Role::Dim), canvas.span(text, role), canvas.span(clock, Role::Dim)]
}

/// Steps, a bar, and what else counts up.
fn progress(canvas: &mut Canvas, area: Rect, state: &State) {
    let run = &state.run;
    let total = run.about.total_steps;
    let of = if total > 0 { format!("/{}", format::count(total)) } else { String::new() };
    let x = canvas.put(area, 0, 1, &format!("step {}{of} ", format::count(run.step)), Role::Text);
    let mut facts = facts(state);
    let wide = usize::from(area.width);
    let needed = |facts: &[String]| facts.iter().map(|fact| width(fact) + 2).sum::<usize>();
    while x + SHORTEST_BAR + needed(&facts) > wide && facts.pop().is_some() {}
    let bar = wide.saturating_sub(x + needed(&facts));
    let role = match run.status {
        Status::Failed { .. } => Role::Bad,
        Status::Paused => Role::Warning,
        _ => Role::Good,
    };
    canvas.meter(area, (x, 1), bar, run.progress(), role);
    facts.iter().fold(x + bar, |x, fact| canvas.put(area, x + 2, 1, fact, Role::Dim));
}

/// Facts about the progress, the most important first.
fn facts(state: &State) -> Vec<String> {
    let run = &state.run;
    let known = run.about.total_steps > 0;
    let mut facts: Vec<String> = known.then(|| format::percent(run.progress())).into_iter().collect();
    if let Some(eta) = run.eta() {
        facts.push(format!("eta {}", format::seconds(eta.as_secs_f64())));
    }
    let Some(last) = &run.last else { return facts };
    let epochs = run.about.total_epochs;
    let of = if epochs > 0.0 { format!("/{epochs:.0}") } else { String::new() };
    let epoch =
        if last.epoch.abs() < 1e6 { format!("{:.2}", last.epoch) } else { format::compact(last.epoch) };
    facts.push(format!("epoch {epoch}{of}"));
    facts.push(format!("{} tokens", format::compact(run.tokens_seen as f64)));
    if last.rows_seen > 0 {
        facts.push(format!("row {}/{}", format::count(last.rows_seen), format::count(run.about.rows)));
    }
    facts
}

/// One word for each pane, the focused one marked.
pub fn tabs(canvas: &mut Canvas, tabs: &[(Pane, Rect)], focus: Pane) {
    for &(pane, rect) in tabs {
        let focused = pane == focus;
        let number = if focused { "▸".to_owned() } else { (pane.index() + 1).to_string() };
        let x = canvas.put(rect, 0, 0, &number, if focused { Role::Focus } else { Role::Key });
        canvas.put(rect, x, 0, pane.name(), if focused { Role::Focus } else { Role::Dim });
    }
}
