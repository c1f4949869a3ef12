//! Two runs over each other.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{Event as Input, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::Rect;

use super::draw::axis::{Scale, Unit};
use super::draw::plot::{Chart, Curve, Shape};
use super::format;
use super::input::Zoom;
use super::render::{Canvas, below, beside, frame, split_at};
use super::screen::Screen;
use super::state::{Run, Series};
use super::theme::{Role, Theme};
use crate::error::Result;
use crate::metrics::Command;

/// Colours of the two runs.
const ROLES: [Role; 2] = [Role::Loss, Role::Tokens];
/// Rows of the table, its frame included.
const TABLE: u16 = 12;
/// Part of a view that a key moves by.
const PAN: f64 = 0.25;

type Pick = fn(&Run) -> &Series;

/// What can be drawn for both runs.
const CHARTS: [(&str, Unit, Pick); 5] = [
    ("Loss, smoothed", Unit::Number, |run| &run.smoothed),
    ("Tokens per second", Unit::Count, |run| &run.tokens_per_second),
    ("Time of a step", Unit::Ms, |run| &run.step_ms),
    ("Gradient norm", Unit::Number, |run| &run.grad_norm),
    ("Learning rate", Unit::Number, |run| &run.learning_rate),
];

/// Two runs with their names; charts and a table.
pub struct Comparison {
    runs: [(String, Run); 2],
    zoom: Zoom,
    log_scale: bool,
    /// An index into `CHARTS`, shown first.
    first: usize,
}

impl Comparison {
    /// Two runs with the names that they are called by.
    pub fn new(first: (String, Run), second: (String, Run)) -> Self {
        Self { runs: [first, second], zoom: Zoom::default(), log_scale: false, first: 0 }
    }

    /// Handles a key; only closing is asked of anyone.
    pub fn key(&mut self, key: KeyEvent) -> Option<Command> {
        let extent = self.extent();
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            _ if key.kind == KeyEventKind::Release => {}
            KeyCode::Char('c') if control => return Some(Command::Quit { stop: false }),
            KeyCode::Char('q') | KeyCode::Esc => return Some(Command::Quit { stop: false }),
            KeyCode::Tab => self.first = (self.first + 1) % CHARTS.len(),
            KeyCode::BackTab => self.first = (self.first + CHARTS.len() - 1) % CHARTS.len(),
            KeyCode::Char('+' | '=') => self.zoom.closer(extent),
            KeyCode::Char('-' | '_') => self.zoom.wider(),
            KeyCode::Char('0') => self.zoom.reset(),
            KeyCode::Left | KeyCode::Char('h') => self.zoom.pan(-PAN, extent),
            KeyCode::Right | KeyCode::Char('l') => self.zoom.pan(PAN, extent),
            KeyCode::Char('y') => self.log_scale = !self.log_scale,
            _ => {}
        }
        None
    }

    fn extent(&self) -> (f64, f64) {
        let [(_, one), (_, other)] = &self.runs;
        let (one, other) = (one.extent(), other.extent());
        (one.0.min(other.0), one.1.max(other.1))
    }

    fn chart(&self, index: usize) -> Chart {
        let (_, unit, pick) = CHARTS[index % CHARTS.len()];
        let steps = self.zoom.window(self.extent());
        let lines = self.runs.iter().zip(ROLES).map(|((_, run), role)| {
            let points = pick(run).between(steps.0, steps.1);
            Curve { shape: Shape::Line, role, points }
        });
        let marks = self.runs.iter().zip(ROLES).zip(["◆", "◇"]).map(|(((_, run), role), sign)| {
            let points = run.validation.between(steps.0, steps.1);
            Curve { shape: Shape::Marks(sign), role, points }
        });
        let is_loss = index.is_multiple_of(CHARTS.len());
        let curves: Vec<Curve> = lines.chain(marks.filter(|_| is_loss)).collect();
        let values = curves.iter().flat_map(|curve| curve.points.iter().map(super::state::Bucket::mean));
        let scale = Scale::around(values, self.log_scale && unit == Unit::Number);
        let scale = if unit == Unit::Number { scale } else { scale.with_zero() };
        Chart { curves, steps, scale, unit }
    }

    fn draw_chart(&self, canvas: &mut Canvas, area: Rect, offset: usize) {
        let index = (self.first + offset) % CHARTS.len();
        let inner = frame(canvas, area, CHARTS[index].0, offset == 0);
        canvas.plot(inner, &self.chart(index));
    }

    fn draw_table(&self, canvas: &mut Canvas, area: Rect) {
        let inner = frame(canvas, area, "Figures", false);
        let [first, second] = [rows(&self.runs[0].1), rows(&self.runs[1].1)];
        let column = usize::from(inner.width).saturating_sub(14) / 2;
        for (y, ((name, left), (_, right))) in first.into_iter().zip(second).enumerate() {
            canvas.put(inner, 0, y, name, Role::Dim);
            for (side, value) in [left, right].into_iter().enumerate() {
                let value = super::draw::text::fit(&value, column.saturating_sub(1));
                canvas.put(inner, 14 + side * column, y, &value, ROLES[side]);
            }
        }
    }
}

/// Names and values of what is compared.
fn rows(run: &Run) -> Vec<(&'static str, String)> {
    let shown = |value: Option<f64>, unit: fn(f64) -> String| value.map_or("-".to_owned(), unit);
    let about = &run.about;
    let best = run.best.map(|(step, loss)| format!("{} at {}", format::number(loss), format::count(step)));
    let seconds = run.log.entries.back().map(|entry| entry.at.as_secs_f64());
    let named = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    vec![
        ("model", named(&about.model)),
        ("device", named(&about.device)),
        ("steps", format::count(run.step)),
        ("loss", shown(run.smoothed.last().map(|(_, loss)| loss), format::number)),
        ("best val", best.unwrap_or_else(|| "-".to_owned())),
        ("step p50", shown(run.latency.quantile(0.5), format::ms)),
        ("step p95", shown(run.latency.quantile(0.95), format::ms)),
        ("tokens/s", shown(run.throughput.over(usize::MAX).map(|(all, _)| all), format::compact)),
        ("tokens", format::compact(run.tokens_seen as f64)),
        ("time", shown(seconds, format::seconds)),
    ]
}

impl Screen for Comparison {
    fn update(&mut self, _: Duration) -> Result<bool> {
        Ok(false)
    }

    fn draw(&self, theme: Theme, buffer: &mut Buffer) {
        let area = buffer.area;
        let mut canvas = Canvas { buffer, theme };
        let names = self.runs.iter().zip(ROLES).zip(["━ ◆ ", "━ ◇ "]);
        let names: Vec<_> =
            names.map(|(((name, _), role), sign)| vec![canvas.span(format!("{sign}{name}"), role)]).collect();
        let used = canvas.flow(area, 0, 2, &names);
        let body = below(area, used);
        let (body, footer) = split_at(body, usize::from(body.height).saturating_sub(1));
        let (upper, lower) = split_at(body, usize::from(body.height.saturating_sub(TABLE)));
        if body.height < TABLE + 6 {
            self.draw_chart(&mut canvas, body, 0);
        } else if body.width >= 110 && body.height >= 30 {
            let (top, middle) = split_at(upper, usize::from(upper.height) * 3 / 5);
            self.draw_chart(&mut canvas, top, 0);
            let (left, right) = beside(middle, 0.5, 0);
            self.draw_chart(&mut canvas, left, 1);
            self.draw_chart(&mut canvas, right, 2);
            let (left, right) = beside(lower, 0.5, 0);
            self.draw_table(&mut canvas, left);
            self.draw_chart(&mut canvas, right, 3);
        } else {
            self.draw_chart(&mut canvas, upper, 0);
            self.draw_table(&mut canvas, lower);
        }
        let keys = [("q", "close"), ("tab", "next chart"), ("+-", "zoom"), ("←→", "pan"), ("y", "log scale")];
        let keys: Vec<_> = keys
            .into_iter()
            .map(|(key, what)| vec![canvas.span(key, Role::Key), canvas.span(format!(" {what}"), Role::Text)])
            .collect();
        canvas.flow(footer, 0, 1, &keys);
    }

    fn input(&mut self, input: Input, _: Rect) -> Option<Command> {
        match input {
            Input::Key(key) => self.key(key),
            _ => None,
        }
    }

    fn ended(&self) -> bool {
        true
    }
}
