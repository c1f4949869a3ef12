//! Adapter norms and update ratios, layer by layer and over time.

use ratatui::layout::Rect;

use super::Canvas;
use super::canvas::{below, split_at};
use crate::metrics::LayerReport;
use crate::tui::draw::text::put;
use crate::tui::format;
use crate::tui::state::{LayerLook, State};
use crate::tui::theme::Role;

/// Cells of one layer, at most.
const WIDEST: usize = 6;
/// Columns for the step on the left.
const GUTTER: usize = 7;

/// Norms above, update ratios below.
pub fn draw(canvas: &mut Canvas, area: Rect, state: &State) {
    let looks = &state.run.layers.looks;
    if looks.is_empty() {
        canvas.put(area, 0, 0, "nothing measured yet", Role::Dim);
        return;
    }
    let (upper, lower) = split_at(area, usize::from(area.height) / 2);
    strip(canvas, upper, state, "adapter norm", |layer| layer.norm);
    strip(canvas, lower, state, "update / weight", |layer| layer.update_ratio);
}

/// A title with the range of values, then a row for each look, the latest on top, with layers from left to right.
fn strip(canvas: &mut Canvas, area: Rect, state: &State, title: &str, pick: fn(&LayerReport) -> f64) {
    let looks = &state.run.layers.looks;
    let rows = usize::from(area.height).saturating_sub(2);
    let latest = looks.back().map_or(&[][..], |look| &look.layers);
    let Some((low, high)) = range(latest.iter().map(pick)) else { return };
    let shown: Vec<&LayerLook> = looks.iter().rev().take(rows.max(1)).collect();
    let all = shown.iter().flat_map(|look| look.layers.iter().map(pick));
    let (bottom, top) = range(all).unwrap_or((low, high));
    let hottest = latest.iter().max_by(|a, b| finite(pick(a)).total_cmp(&finite(pick(b))));
    let hottest = hottest.map_or(String::new(), |layer| format!(", most in layer {}", layer.layer));
    let text = format!("{title}  {} to {}{hottest}", format::number(low), format::number(high));
    canvas.put(area, 0, 0, &text, Role::Dim);
    scale(canvas, area, text.chars().count() + 2);
    let cells = below(area, 1);
    for (y, look) in shown.iter().take(rows.max(1)).enumerate() {
        canvas.put(cells, 0, y, &format!("{:>6}", format::compact(look.step as f64)), Role::Dim);
        row(canvas, cells, y, &look.layers, |layer| {
            (pick(layer) - bottom) / (top - bottom).max(f64::MIN_POSITIVE)
        });
    }
    labels(canvas, cells, shown.len().min(rows.max(1)), latest.len());
}

/// For comparisons: what is not a number is least.
fn finite(value: f64) -> f64 {
    if value.is_finite() { value } else { f64::NEG_INFINITY }
}

/// Smallest and largest finite value.
fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let finite = values.filter(|value| value.is_finite());
    finite.map(|value| (value, value)).reduce(|all, one| (all.0.min(one.0), all.1.max(one.1)))
}

/// Cells for the layers: how many layers share a place, and how many places there are.
fn places(layers: usize, room: usize) -> (usize, usize) {
    let shared = layers.div_ceil(room.max(1)).max(1);
    (shared, layers.div_ceil(shared).max(1))
}

/// The column where a place begins; places fill the room up to `WIDEST` cells each.
fn column(place: usize, places: usize, room: usize) -> usize {
    GUTTER + place * room.min(places * WIDEST) / places
}

/// Where there are more layers than cells, a cell shows the largest of its layers.
fn row(
    canvas: &mut Canvas,
    area: Rect,
    y: usize,
    layers: &[LayerReport],
    part: impl Fn(&LayerReport) -> f64,
) {
    let room = usize::from(area.width).saturating_sub(GUTTER);
    let (shared, count) = places(layers.len(), room);
    for (index, group) in layers.chunks(shared).enumerate() {
        let odd = group.iter().map(&part).find(|value| !value.is_finite());
        let most = odd.unwrap_or_else(|| group.iter().map(&part).fold(0.0, f64::max));
        let (symbol, style) = canvas.theme.heat(most);
        let (start, end) = (column(index, count, room), column(index + 1, count, room));
        put(canvas.buffer, area, start, y, &symbol.repeat(end - start), style);
    }
}

/// Numbers of layers below the cells.
fn labels(canvas: &mut Canvas, area: Rect, y: usize, layers: usize) {
    let room = usize::from(area.width).saturating_sub(GUTTER);
    let (shared, count) = places(layers, room);
    let longest = layers.to_string().len() + 2;
    let every = (longest * count).div_ceil(room.min(count * WIDEST).max(1)).max(1);
    for index in (0..count).step_by(every) {
        let x = column(index, count, room);
        let label = (index * shared).to_string();
        if x + label.len() <= usize::from(area.width) {
            canvas.put(area, x, y, &label, Role::Dim);
        }
    }
}

/// The colours from little to much, at the right of a title.
fn scale(canvas: &mut Canvas, area: Rect, from: usize) {
    const STEPS: usize = 12;
    let wide = usize::from(area.width);
    if wide < from + STEPS {
        return;
    }
    for step in 0..STEPS {
        let (symbol, style) = canvas.theme.heat(step as f64 / (STEPS - 1) as f64);
        put(canvas.buffer, area, wide - STEPS + step, 0, symbol, style);
    }
}
