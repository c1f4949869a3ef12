//! A chart: curves over steps between two labelled axes.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::axis::{Scale, Unit};
use super::braille::Dots;
use super::text::{put, width};
use crate::tui::format;
use crate::tui::state::Bucket;
use crate::tui::theme::{Role, Theme};

/// Below this many rows there is no axis of steps, below this many columns no axis at all.
const AXIS_ROWS: u16 = 6;
const AXIS_COLUMNS: u16 = 20;

/// How values are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// From the smallest to the largest value of every bucket.
    Band,
    /// Through the means, of all values in a column of cells together.
    Line,
    /// A letter at every mean.
    Marks(&'static str),
}

/// Values over steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    pub shape: Shape,
    pub role: Role,
    pub points: Vec<Bucket>,
}

/// Curves with common axes; later ones are drawn over earlier ones.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    pub curves: Vec<Curve>,
    /// First and last step.
    pub steps: (f64, f64),
    pub scale: Scale,
    pub unit: Unit,
}

impl Chart {
    /// Whether there is nothing to draw, but perhaps axes.
    pub fn is_empty(&self) -> bool {
        self.curves.iter().all(|curve| curve.points.is_empty())
    }

    fn x(&self, step: f64, most: usize) -> usize {
        let scale = Scale { from: self.steps.0, to: self.steps.1, log: false };
        (scale.place(step) * most as f64).round() as usize
    }

    /// 0 is at the top.
    fn y(&self, value: f64, most: usize) -> usize {
        ((1.0 - self.scale.place(value)) * most as f64).round() as usize
    }
}

/// Draws a chart; without any point, a word in the middle.
pub fn plot(buffer: &mut Buffer, area: Rect, chart: &Chart, theme: Theme) {
    let area = area.intersection(buffer.area);
    if area.is_empty() {
        return;
    }
    if chart.is_empty() {
        let text = "no data yet";
        let x = usize::from(area.width).saturating_sub(text.len()) / 2;
        put(buffer, area, x, usize::from(area.height) / 2, text, theme.style(Role::Dim));
        return;
    }
    let inner = axes(buffer, area, chart, theme);
    if inner.is_empty() {
        return;
    }
    let mut dots = Dots::new(inner);
    let styles: Vec<_> = chart.curves.iter().map(|curve| theme.style(curve.role)).collect();
    for (layer, curve) in chart.curves.iter().enumerate() {
        match curve.shape {
            Shape::Band => band(&mut dots, chart, curve, layer),
            Shape::Line => line(&mut dots, chart, curve, layer),
            Shape::Marks(_) => {}
        }
    }
    dots.paint(buffer, &styles);
    let (wide, high) = (usize::from(inner.width) - 1, usize::from(inner.height) - 1);
    for (curve, style) in chart.curves.iter().zip(styles) {
        let Shape::Marks(symbol) = curve.shape else { continue };
        for point in curve.points.iter().filter(|point| inside(chart, point.center())) {
            put(buffer, inner, chart.x(point.center(), wide), chart.y(point.mean(), high), symbol, style);
        }
    }
}

/// Whether a step is in view: buckets may reach beyond it.
fn inside(chart: &Chart, step: f64) -> bool {
    step >= chart.steps.0 && step <= chart.steps.1
}

/// Fills columns of dots between the extremes of each bucket.
fn band(dots: &mut Dots, chart: &Chart, curve: &Curve, layer: usize) {
    let (wide, high) = dots.size();
    for point in &curve.points {
        let (first, last) = (chart.x(point.first, wide - 1), chart.x(point.last, wide - 1));
        let (top, bottom) = (chart.y(point.max, high - 1), chart.y(point.min, high - 1));
        for x in first..=last {
            dots.column(x, top, bottom, layer);
        }
    }
}

/// Connects the means of neighbouring columns of cells; averaging them calms noisy curves.
fn line(dots: &mut Dots, chart: &Chart, curve: &Curve, layer: usize) {
    let (wide, high) = dots.size();
    let column = |point: &Bucket| chart.x(point.center(), wide - 1) / 2;
    let mut before = None;
    for group in curve.points.chunk_by(|left, right| column(left) == column(right)) {
        let count = group.len() as f64;
        let step = group.iter().map(|point| point.center() / count).sum();
        let value = group.iter().map(|point| point.mean() / count).sum();
        let here = (chart.x(step, wide - 1), chart.y(value, high - 1));
        dots.line(before.unwrap_or(here), here, layer);
        before = Some(here);
    }
}

/// Draws both axes and returns what is left for the curves.
fn axes(buffer: &mut Buffer, area: Rect, chart: &Chart, theme: Theme) -> Rect {
    if area.width < AXIS_COLUMNS || area.height < 2 {
        return area;
    }
    let below = if area.height >= AXIS_ROWS { 2 } else { 0 };
    let high = area.height - below;
    let ticks = chart.unit.ticks(&chart.scale, (usize::from(high) / 2).clamp(1, 8));
    let labels = chart.unit.labels(&ticks);
    let gutter = labels.iter().map(|label| width(label)).max().unwrap_or(0).min(12) as u16 + 1;
    let inner = Rect { x: area.x + gutter + 1, width: area.width - gutter - 1, height: high, ..area };
    let (dim, border) = (theme.style(Role::Dim), theme.style(Role::Border));
    for y in 0..usize::from(high) {
        put(buffer, area, usize::from(gutter), y, "│", border);
    }
    for (tick, label) in ticks.iter().zip(&labels) {
        let y = chart.y(*tick, usize::from(high) - 1);
        let x = (usize::from(gutter) - 1).saturating_sub(width(label));
        put(buffer, area, x, y, label, dim);
        put(buffer, area, usize::from(gutter), y, "┤", border);
    }
    if below > 0 {
        step_axis(buffer, Rect { y: area.y + high, height: below, ..inner }, chart, theme);
        put(buffer, area, usize::from(gutter), usize::from(high), "╰", border);
    }
    inner
}

/// Draws the axis of steps: a line with ticks, and below it labels that do not touch.
fn step_axis(buffer: &mut Buffer, area: Rect, chart: &Chart, theme: Theme) {
    let (dim, border) = (theme.style(Role::Dim), theme.style(Role::Border));
    let wide = usize::from(area.width);
    put(buffer, area, 0, 0, &"─".repeat(wide), border);
    let scale = Scale { from: chart.steps.0, to: chart.steps.1, log: false };
    let mut free = 0;
    for tick in scale.ticks((wide / 10).clamp(1, 10)) {
        if tick.fract() != 0.0 {
            continue;
        }
        let label = format::rounded(format::compact(tick));
        let x = chart.x(tick, wide - 1);
        put(buffer, area, x, 0, "┬", border);
        let start = x.saturating_sub(width(&label) / 2).min(wide.saturating_sub(width(&label)));
        if start >= free {
            free = put(buffer, area, start, 1, &label, dim) + 1;
        }
    }
}
