//! Planned and measured bytes.

use ratatui::layout::Rect;

use super::Canvas;
use super::canvas::below;
use crate::metrics::MemoryKind;
use crate::tui::draw::text::{fit, width};
use crate::tui::format;
use crate::tui::state::State;
use crate::tui::theme::Role;
use crate::tui::view;

/// Rows that the chart over steps needs.
const CHART: usize = 6;
/// Columns of a bar, at least.
const SHORTEST: usize = 4;
/// Columns of a number.
const NUMBER: usize = 10;

/// The process, a table by kind, and the process over the steps.
pub fn draw(canvas: &mut Canvas, area: Rect, state: &State) {
    let memory = &state.run.memory;
    if memory.kinds.is_empty() && memory.process_bytes == 0 {
        planned_only(canvas, area, state);
        return;
    }
    let mut y = process(canvas, area, state);
    y += table(canvas, below(area, y), &memory.kinds);
    let rest = below(area, y);
    if usize::from(rest.height) >= CHART {
        canvas.put(rest, 0, 0, "process", Role::Dim);
        canvas.plot(below(rest, 1), &view::memory(state));
    }
}

/// Before anything was measured, plans at least say what they need.
fn planned_only(canvas: &mut Canvas, area: Rect, state: &State) {
    let text = match state.run.plans.plans.iter().map(|plan| plan.arena_bytes).max() {
        Some(bytes) => format!("activations planned: {}", format::bytes(bytes as f64)),
        None => "nothing measured yet".to_owned(),
    };
    canvas.put(area, 0, 0, &text, Role::Dim);
}

/// The process, and how much of the limit it takes. Returns the rows used.
fn process(canvas: &mut Canvas, area: Rect, state: &State) -> usize {
    let memory = &state.run.memory;
    if memory.process_bytes == 0 {
        return 0;
    }
    let used = format::bytes(memory.process_bytes as f64);
    let x = canvas.put(area, 0, 0, "process ", Role::Dim);
    let x = canvas.put(area, x, 0, &used, Role::Text);
    if memory.limit_bytes > 0 {
        let part = memory.process_bytes as f64 / memory.limit_bytes as f64;
        let role = match part {
            part if part > 0.95 => Role::Bad,
            part if part > 0.8 => Role::Warning,
            _ => Role::Good,
        };
        let of = format!(" of {} ", format::bytes(memory.limit_bytes as f64));
        let x = canvas.put(area, x, 0, &of, Role::Dim);
        let share = format!(" {}", format::percent(part));
        let wide = usize::from(area.width).saturating_sub(x + share.len());
        canvas.meter(area, (x, 0), wide, part, role);
        canvas.put(area, x + wide, 0, &share, role);
    }
    1
}

/// A row for each kind: planned, measured, and a bar of its share. Returns the rows used.
fn table(canvas: &mut Canvas, area: Rect, kinds: &[MemoryKind]) -> usize {
    let rows = kinds.len().min(usize::from(area.height).saturating_sub(1));
    if rows == 0 {
        return 0;
    }
    let wide = usize::from(area.width);
    let names = kinds.iter().map(|kind| width(&kind.kind)).max().unwrap_or(0);
    let names = names.min(wide.saturating_sub(2 * NUMBER + 4));
    canvas.put(area, names + 1, 0, &format!("{:>NUMBER$} {:>NUMBER$}", "planned", "measured"), Role::Dim);
    let bytes = |kind: &MemoryKind| kind.measured_bytes.unwrap_or(kind.planned_bytes) as f64;
    let most = kinds.iter().map(bytes).fold(1.0, f64::max);
    for (row, kind) in kinds.iter().take(rows).enumerate() {
        let y = row + 1;
        canvas.put(area, 0, y, &fit(&kind.kind, names), Role::Text);
        let planned = format::bytes(kind.planned_bytes as f64);
        let measured = kind.measured_bytes.map_or("-".to_owned(), |bytes| format::bytes(bytes as f64));
        let x = canvas.put(area, names + 1, y, &format!("{planned:>NUMBER$} "), Role::Dim);
        let over = kind.measured_bytes.is_some_and(|bytes| bytes > kind.planned_bytes);
        let role = if over { Role::Warning } else { Role::Text };
        let x = canvas.put(area, x, y, &format!("{measured:>NUMBER$} "), role);
        let room = wide.saturating_sub(x);
        if room >= SHORTEST {
            canvas.meter(area, (x, y), room, bytes(kind) / most, Role::Part(row % 8));
        }
    }
    rows + 1
}
