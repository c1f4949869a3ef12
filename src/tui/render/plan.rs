//! What a step consists of, and what its caches save.

use ratatui::layout::Rect;

use super::Canvas;
use super::canvas::below;
use crate::tui::draw::bars;
use crate::tui::draw::text::{fit, width};
use crate::tui::format;
use crate::tui::state::{PlanFacts, State};
use crate::tui::theme::Role;

/// Rows of the chart of widths, and rows that the pane needs to have one.
const WIDTH_ROWS: usize = 3;
const TALL: usize = 12;
/// Columns of the table's cells.
const COLUMNS: [usize; 6] = [10, 6, 8, 9, 8, 19];

/// The main plan, the caches, the passes, the batches, and a table of all plans.
pub fn draw(canvas: &mut Canvas, area: Rect, state: &State, focused: bool) {
    let plans = &state.run.plans;
    let Some(plan) = plans.main() else {
        canvas.put(area, 0, 0, "no plan yet", Role::Dim);
        return;
    };
    let mut y = head(canvas, area, plan);
    y += caches(canvas, below(area, y), state);
    y += passes(canvas, below(area, y), plan);
    let rest = below(area, y);
    if usize::from(area.height) >= TALL && usize::from(rest.height) > WIDTH_ROWS && !plan.widths.is_empty() {
        y += 1 + widths(canvas, rest, plan);
    }
    table(canvas, below(area, y), state, if focused { state.ui.scroll } else { 0 });
}

/// Shape and size of the plan. Returns the rows used.
fn head(canvas: &mut Canvas, area: Rect, plan: &PlanFacts) -> usize {
    let mut facts = vec![
        (format::count(plan.operations), "operations"),
        (format::count(plan.batches), "batches"),
        (format::bytes(plan.arena_bytes as f64), "arena"),
    ];
    if plan.kernels > 0 {
        facts.insert(2, (format::count(plan.kernels), "kernels"));
    }
    if plan.plan_ms > 0.0 {
        facts.push((format::ms(plan.plan_ms), "to plan"));
    }
    let shape = vec![canvas.span(format!("{} x {}", plan.rows, plan.sequence), Role::Key)];
    let facts = facts.into_iter().map(|(value, name)| {
        vec![canvas.span(value, Role::Text), canvas.span(format!(" {name}"), Role::Dim)]
    });
    let groups: Vec<_> = std::iter::once(shape).chain(facts).collect();
    canvas.flow(area, 0, 2, &groups)
}

/// What the caches of plans and tensors found. Returns the rows used.
fn caches(canvas: &mut Canvas, area: Rect, state: &State) -> usize {
    let plans = &state.run.plans;
    let mut groups = Vec::new();
    for (name, hits, misses) in [
        ("plan cache", plans.plan_hits, plans.plan_misses),
        ("tensor cache", plans.tensor_hits, plans.tensor_misses),
    ] {
        let all = hits.saturating_add(misses);
        if all == 0 {
            continue;
        }
        let part = hits as f64 / all as f64;
        let counts =
            format!(" {} hits {} misses", format::compact(hits as f64), format::compact(misses as f64));
        let role = if part > 0.9 { Role::Good } else { Role::Warning };
        let name = canvas.span(format!("{name} "), Role::Dim);
        groups.push(vec![name, canvas.span(format::percent(part), role), canvas.span(counts, Role::Dim)]);
    }
    if plans.command_buffers > 0 {
        let text = format!("{} command buffers a step", format::count(plans.command_buffers as usize));
        groups.push(vec![canvas.span(text, Role::Dim)]);
    }
    canvas.flow(area, 0, 2, &groups)
}

/// Operations before the first pass and after each, as bars.
fn passes(canvas: &mut Canvas, area: Rect, plan: &PlanFacts) -> usize {
    if plan.operations_before == 0 {
        return 0;
    }
    let first = ("recorded", plan.operations_before);
    let later = plan.passes.iter().map(|pass| (pass.name.as_str(), pass.operations));
    let last = ("scheduled", plan.operations);
    let stages: Vec<(&str, usize)> = std::iter::once(first).chain(later).chain([last]).collect();
    let most = stages.iter().map(|&(_, count)| count).max().unwrap_or(1).max(1);
    let names = stages.iter().map(|(name, _)| width(name)).max().unwrap_or(0).min(16);
    let numbers = stages.iter().map(|&(_, count)| format::count(count).len()).max().unwrap_or(0);
    let rows = stages.len().min(usize::from(area.height));
    for (y, &(name, count)) in stages.iter().take(rows).enumerate() {
        canvas.put(area, 0, y, &fit(name, names), Role::Dim);
        let number = format!("{:>numbers$} ", format::count(count));
        let x = canvas.put(area, names + 1, y, &number, Role::Text);
        let wide = usize::from(area.width).saturating_sub(x);
        canvas.meter(area, (x, y), wide, count as f64 / most as f64, Role::Part(1));
    }
    rows
}

/// How many operations run side by side, from the first batch to the last. Returns the rows used but for the title.
fn widths(canvas: &mut Canvas, area: Rect, plan: &PlanFacts) -> usize {
    let widest = plan.widths.iter().max().copied().unwrap_or(0);
    let mean = plan.operations as f64 / plan.batches.max(1) as f64;
    let title = format!("batch widths: widest {widest}, mean {}", format::number(mean));
    canvas.put(area, 0, 0, &title, Role::Dim);
    let part = plan.widths.len().div_ceil(usize::from(area.width).max(1));
    let counts: Vec<u64> =
        plan.widths.chunks(part.max(1)).map(|part| part.iter().copied().max().map_or(0, u64::from)).collect();
    let rows = Rect { height: WIDTH_ROWS as u16, ..below(area, 1) };
    let style = canvas.theme.style(Role::Part(2));
    bars::columns(canvas.buffer, rows, &counts, |_| style);
    WIDTH_ROWS
}

/// All shapes that have a plan, latest first.
fn table(canvas: &mut Canvas, area: Rect, state: &State, scroll: usize) {
    let plans = &state.run.plans.plans;
    if plans.len() < 2 || area.height < 2 {
        return;
    }
    let wide = usize::from(area.width);
    let header = ["shape", "ops", "batches", "arena", "kernels", "ends with"].map(str::to_owned);
    canvas.put(area, 0, 0, &row(&header, wide), Role::Dim);
    for (y, plan) in plans.iter().rev().skip(scroll).take(usize::from(area.height) - 1).enumerate() {
        let cells = [
            format!("{} x {}", plan.rows, plan.sequence),
            format::compact(plan.operations as f64),
            format::compact(plan.batches as f64),
            format::bytes(plan.arena_bytes as f64),
            if plan.kernels > 0 { format::compact(plan.kernels as f64) } else { "-".to_owned() },
            if plan.updates { "update" } else { "gradients or loss" }.to_owned(),
        ];
        canvas.put(area, 0, y + 1, &row(&cells, wide), Role::Text);
    }
}

/// Cells side by side, as many as fit.
fn row(cells: &[String], wide: usize) -> String {
    let mut line = String::new();
    for (cell, column) in cells.iter().zip(COLUMNS) {
        if line.len() + column > wide {
            break;
        }
        line += &format!("{cell:>column$}");
    }
    line
}
