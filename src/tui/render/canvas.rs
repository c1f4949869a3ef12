//! A buffer and the palette to paint it with.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::tui::draw::plot::{Chart, plot};
use crate::tui::draw::text::{Span, put, put_right, put_spans};
use crate::tui::draw::{bars, text};
use crate::tui::theme::{Role, Theme};

/// Rows and columns are counted from the corner of the area that is drawn into.
pub struct Canvas<'a> {
    pub buffer: &'a mut Buffer,
    pub theme: Theme,
}

impl Canvas<'_> {
    /// A text in the colour of a role, to be drawn later.
    pub fn span(&self, text: impl Into<String>, role: Role) -> Span {
        (text.into(), self.theme.style(role))
    }

    /// Returns the column after the text.
    pub fn put(&mut self, area: Rect, x: usize, y: usize, text: &str, role: Role) -> usize {
        put(self.buffer, area, x, y, text, self.theme.style(role))
    }

    /// Returns the column after the last text.
    pub fn put_spans(&mut self, area: Rect, x: usize, y: usize, spans: &[Span]) -> usize {
        put_spans(self.buffer, area, x, y, spans)
    }

    /// Ends at the right edge and keeps clear of the first `from` columns.
    pub fn put_right(&mut self, area: Rect, y: usize, from: usize, spans: &[Span]) {
        put_right(self.buffer, area, y, from, spans);
    }

    /// Draws curves with their axes.
    pub fn plot(&mut self, area: Rect, chart: &Chart) {
        plot(self.buffer, area, chart, self.theme);
    }

    /// Draws a thin bar from a column and a row on; `part` from 0 to 1.
    pub fn meter(&mut self, area: Rect, place: (usize, usize), wide: usize, part: f64, role: Role) {
        let styles = (self.theme.style(role), self.theme.style(Role::Border));
        bars::meter(self.buffer, area, place, wide, part, styles);
    }

    /// Groups of spans beside each other; those that do not fit any more go to the next row, of `rows`. Returns how many
    /// rows were used.
    pub fn flow(&mut self, area: Rect, y: usize, rows: usize, groups: &[Vec<Span>]) -> usize {
        const GAP: usize = 2;
        let (mut x, mut row) = (0, 0);
        for group in groups {
            let wide: usize = group.iter().map(|(text, _)| text::width(text)).sum();
            if x > 0 && x + wide > usize::from(area.width) {
                (x, row) = (0, row + 1);
            }
            if row >= rows {
                return rows;
            }
            x = self.put_spans(area, x, y + row, group) + GAP;
        }
        if groups.is_empty() { 0 } else { row + 1 }
    }
}

/// The area without its first `rows`.
pub fn below(area: Rect, rows: usize) -> Rect {
    let rows = (rows.min(usize::from(area.height))) as u16;
    Rect { y: area.y + rows, height: area.height - rows, ..area }
}

/// The first `rows` of the area, and what is below.
pub fn split_at(area: Rect, rows: usize) -> (Rect, Rect) {
    let rest = below(area, rows);
    (Rect { height: area.height - rest.height, ..area }, rest)
}

/// Two areas beside each other with a gap between; the left one gets `part` of the width.
pub fn beside(area: Rect, part: f64, gap: u16) -> (Rect, Rect) {
    let left = ((f64::from(area.width) * part) as u16).min(area.width);
    let start = left.saturating_add(gap).min(area.width);
    let right = Rect { x: area.x + start, width: area.width - start, ..area };
    (Rect { width: left, ..area }, right)
}
