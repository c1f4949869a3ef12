//! Bars, meters, histograms and sparklines.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::text::put;
use crate::tui::theme::{Role, Theme};

/// From one to eight eighths of a cell's height.
const EIGHTHS: [&str; 8] = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];

/// A thin bar that is filled from the left; `part` from 0 to 1.
pub fn meter(
    buffer: &mut Buffer,
    area: Rect,
    (x, y): (usize, usize),
    wide: usize,
    part: f64,
    styles: (Style, Style),
) {
    let part = if part.is_finite() { part.clamp(0.0, 1.0) } else { 0.0 };
    let filled = (part * wide as f64).round() as usize;
    put(buffer, area, x, y, &"━".repeat(filled), styles.0);
    put(buffer, area, x + filled, y, &"─".repeat(wide - filled), styles.1);
}

/// Cells for each part so that all of them together fill `wide`: by largest remainder.
pub fn share(parts: &[f64], wide: usize) -> Vec<usize> {
    let total: f64 = parts.iter().sum();
    if total <= 0.0 || !total.is_finite() {
        return vec![0; parts.len()];
    }
    let exact: Vec<f64> = parts.iter().map(|part| part / total * wide as f64).collect();
    let mut cells: Vec<usize> = exact.iter().map(|cells| cells.floor() as usize).collect();
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()));
    let left = wide.saturating_sub(cells.iter().sum());
    for index in order.into_iter().cycle().take(left) {
        cells[index] += 1;
    }
    cells
}

/// One row of parts beside each other, each in the colour of its index.
pub fn stacked(buffer: &mut Buffer, area: Rect, y: usize, parts: &[(usize, f64)], theme: Theme) {
    let values: Vec<f64> = parts.iter().map(|&(_, value)| value).collect();
    let mut x = 0;
    for (&(index, _), cells) in parts.iter().zip(share(&values, usize::from(area.width))) {
        put(buffer, area, x, y, &theme.fill(index).repeat(cells), theme.style(Role::Part(index)));
        x += cells;
    }
}

/// Columns that grow from the bottom of the area and share its width; `style` is asked for each.
pub fn columns(buffer: &mut Buffer, area: Rect, counts: &[u64], style: impl Fn(usize) -> Style) {
    let highest = counts.iter().copied().max().unwrap_or(0).max(1);
    let rows = usize::from(area.height);
    let edge = |index: usize| index * usize::from(area.width) / counts.len().max(1);
    for (index, &count) in counts.iter().enumerate() {
        let exact = count as f64 / highest as f64 * (rows * 8) as f64;
        // What happened at all is seen.
        let eighths = if count > 0 { (exact.round() as usize).max(1) } else { 0 };
        for row in 0..rows {
            let here = eighths.saturating_sub(row * 8).min(8);
            if here > 0 {
                let wide = edge(index + 1) - edge(index);
                let bar = EIGHTHS[here - 1].repeat(wide);
                put(buffer, area, edge(index), rows - 1 - row, &bar, style(index));
            }
        }
    }
}

/// Values as one row of small columns, between the smallest and the largest of them.
pub fn sparkline(values: impl Iterator<Item = f64>) -> String {
    let values: Vec<f64> = values.collect();
    let finite = values.iter().copied().filter(|value| value.is_finite());
    let (low, high) = finite
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    let level = |value: f64| {
        let span = high - low;
        if span > 0.0 && span.is_finite() { ((value - low) / span * 7.0).round() as usize } else { 3 }
    };
    values.iter().map(|&value| if value.is_finite() { EIGHTHS[level(value).min(7)] } else { " " }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sparklines_span_their_values() {
        assert_eq!(sparkline([0.0, 7.0, f64::NAN, 3.0].into_iter()), "▁█ ▄");
        assert_eq!(sparkline([2.0, 2.0].into_iter()), "▄▄");
        assert_eq!(sparkline(std::iter::empty()), "");
    }

    proptest! {
        #[test]
        fn shares_fill_the_bar(parts in prop::collection::vec(0.0_f64..1e9, 1..8), wide in 0_usize..200) {
            let cells = share(&parts, wide);
            let expected = if parts.iter().sum::<f64>() > 0.0 { wide } else { 0 };
            prop_assert_eq!(cells.iter().sum::<usize>(), expected);
        }
    }
}
