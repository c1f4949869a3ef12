//! How long steps take, and what takes the time.

use ratatui::layout::Rect;

use super::Canvas;
use super::canvas::{below, beside, split_at};
use crate::tui::draw::text::{Span, fit, width};
use crate::tui::draw::{axis, bars};
use crate::tui::format;
use crate::tui::state::{STAGES, State};
use crate::tui::theme::Role;
use crate::tui::view;

/// Columns that two halves need, and rows that a second chart needs.
const WIDE: u16 = 56;
const TALL: usize = 14;
/// Columns that a legend with percentages needs.
const NARROW: u16 = 32;
/// Columns of the histogram, at most.
const MOST_BARS: usize = 60;
/// Cells between two labels below the histogram.
const LABEL_GAP: usize = 14;

/// Percentiles on top; times at the left, and what they consist of at the right.
pub fn draw(canvas: &mut Canvas, area: Rect, state: &State, focused: bool) {
    let rows = canvas.flow(area, 0, 1, &quantiles(canvas, state));
    let rest = below(area, rows);
    let (left, right) =
        if rest.width >= WIDE { beside(rest, 0.48, 3) } else { split_at(rest, usize::from(rest.height) / 2) };
    if usize::from(left.height) >= TALL {
        let (upper, lower) = split_at(left, usize::from(left.height) / 2);
        histogram(canvas, upper, state);
        canvas.put(lower, 0, 0, "time of each step", Role::Dim);
        canvas.plot(below(lower, 1), &view::step_time(state));
    } else {
        histogram(canvas, left, state);
    }
    split(canvas, right, state, if focused { state.ui.scroll } else { 0 });
}

/// Percentiles, mean and longest time over the whole run.
fn quantiles(canvas: &Canvas, state: &State) -> Vec<Vec<Span>> {
    let latency = &state.run.latency;
    let marks = [("p50", 0.5, Role::Good), ("p95", 0.95, Role::Warning), ("p99", 0.99, Role::Bad)];
    let mut groups: Vec<Vec<Span>> = marks
        .into_iter()
        .filter_map(|(name, q, role)| {
            let value = format::ms(latency.quantile(q)?);
            Some(vec![canvas.span(format!("{name} "), Role::Dim), canvas.span(value, role)])
        })
        .collect();
    let longest = latency.extent().map(|(_, longest)| longest);
    for (name, value) in [("mean", latency.mean()), ("longest", longest)] {
        if let Some(value) = value {
            groups.push(vec![canvas.span(format!("{name} {}", format::ms(value)), Role::Dim)]);
        }
    }
    groups
}

/// Steps by their time; columns up to p95 are green, up to p99 yellow, beyond red.
fn histogram(canvas: &mut Canvas, area: Rect, state: &State) {
    let latency = &state.run.latency;
    if latency.total() == 0 || area.height < 3 {
        canvas.put(area, 0, 0, "no step yet", Role::Dim);
        return;
    }
    let wide = usize::from(area.width);
    let (counts, from, to) = latency.bars(wide.min(MOST_BARS));
    let scale = axis::Scale { from, to, log: true };
    let places = [0.95, 0.99].map(|q| latency.quantile(q).map_or(1.0, |ms| scale.place(ms)));
    let last = counts.len() as f64;
    let roles = [Role::Good, Role::Warning, Role::Bad];
    let theme = canvas.theme;
    let style = |index: usize| {
        let beyond = places.iter().filter(|place| index as f64 / last > **place).count();
        theme.style(roles[beyond])
    };
    let (upper, labels) = split_at(area, usize::from(area.height) - 2);
    bars::columns(canvas.buffer, upper, &counts, style);
    canvas.put(labels, 0, 0, &"─".repeat(wide), Role::Border);
    let parts = (wide / LABEL_GAP).max(1);
    for part in 0..=parts {
        let place = part as f64 / parts as f64;
        let label = format::ms(from * (to / from).powf(place));
        let x = ((wide as f64 * place) as usize).saturating_sub(width(&label) / 2);
        let x = x.min(wide.saturating_sub(width(&label)));
        canvas.put(labels, x, 1, &label, Role::Dim);
    }
}

/// Bars of parts with a legend: by stage, then by kind of operation.
fn split(canvas: &mut Canvas, area: Rect, state: &State, scroll: usize) {
    let split = &state.run.split;
    let stages: Vec<(usize, f64)> = split.stages();
    if stages.is_empty() {
        return;
    }
    let named: Vec<(usize, &str, f64)> =
        stages.iter().map(|&(stage, ms)| (stage, STAGES[stage], ms)).collect();
    let rows = legend(canvas, area, "mean of the last 50 steps", &named);
    let rest = below(area, rows + 1);
    if split.kinds.is_empty() || rest.height < 3 {
        return;
    }
    let kinds: Vec<(usize, &str, f64)> = split
        .kinds
        .iter()
        .enumerate()
        .skip(scroll)
        .map(|(index, kind)| (index % 8, kind.kind.as_str(), kind.ms))
        .collect();
    let from = if scroll > 0 { format!(", from the {}th", scroll + 1) } else { String::new() };
    let title = format!("operations of step {}{from}", format::count(split.measured_step));
    legend(canvas, rest, &title, &kinds);
}

/// A title, a stacked bar, and a row for each part that fits. Returns the rows used.
fn legend(canvas: &mut Canvas, area: Rect, title: &str, parts: &[(usize, &str, f64)]) -> usize {
    let total: f64 = parts.iter().map(|&(_, _, ms)| ms).sum();
    let sum = [canvas.span(format!("{} ", format::ms(total)), Role::Text), canvas.span(title, Role::Dim)];
    canvas.put_spans(area, 0, 0, &sum);
    let bar: Vec<(usize, f64)> = parts.iter().map(|&(index, _, ms)| (index, ms)).collect();
    bars::stacked(canvas.buffer, area, 1, &bar, canvas.theme);
    let room = usize::from(area.height).saturating_sub(2).min(parts.len());
    let names = parts.iter().take(room).map(|(_, name, _)| width(name)).max().unwrap_or(0);
    let percents = if area.width < NARROW { 0 } else { 7 };
    let names = names.min(usize::from(area.width).saturating_sub(13 + percents));
    for (row, &(index, name, ms)) in parts.iter().take(room).enumerate() {
        let sign = canvas.theme.fill(index);
        let x = canvas.put(area, 0, row + 2, sign, Role::Part(index));
        canvas.put(area, x + 1, row + 2, &fit(name, names), Role::Text);
        let percent = format!("{:>percents$}", format::percent(ms / total));
        let numbers = format!("{:>9}{}", format::ms(ms), if percents > 0 { &percent } else { "" });
        canvas.put(area, x + 2 + names, row + 2, &numbers, Role::Dim);
    }
    room + 2
}
