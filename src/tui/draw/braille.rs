//! Curves of dots: each cell holds 2 x 4 of them.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

/// Bit of the dot in a column and a row of a cell.
const DOTS: [[u8; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];

/// Dots of an area. A layer that is drawn later wins cells over, so that its curve stays clear.
pub struct Dots {
    area: Rect,
    /// Dots and layer of each cell.
    cells: Vec<(u8, usize)>,
}

impl Dots {
    /// No dots.
    pub fn new(area: Rect) -> Self {
        Self { area, cells: vec![(0, 0); usize::from(area.width) * usize::from(area.height)] }
    }

    /// Dots from left to right and from top to bottom.
    pub fn size(&self) -> (usize, usize) {
        (usize::from(self.area.width) * 2, usize::from(self.area.height) * 4)
    }

    /// Sets a dot; one outside is left out.
    pub fn dot(&mut self, x: usize, y: usize, layer: usize) {
        let (wide, high) = self.size();
        if x >= wide || y >= high {
            return;
        }
        let cell = &mut self.cells[y / 4 * usize::from(self.area.width) + x / 2];
        if cell.1 != layer {
            *cell = (0, layer);
        }
        cell.0 |= DOTS[x % 2][y % 4];
    }

    /// A vertical line, both ends included.
    pub fn column(&mut self, x: usize, top: usize, bottom: usize, layer: usize) {
        for y in top..=bottom.min(self.size().1) {
            self.dot(x, y, layer);
        }
    }

    /// A line between two dots: as long as the larger of its two extents.
    pub fn line(&mut self, from: (usize, usize), to: (usize, usize), layer: usize) {
        let (dx, dy) = (to.0 as f64 - from.0 as f64, to.1 as f64 - from.1 as f64);
        let length = dx.abs().max(dy.abs());
        for step in 0..=length as usize {
            let part = if length > 0.0 { step as f64 / length } else { 0.0 };
            let (x, y) = (from.0 as f64 + dx * part, from.1 as f64 + dy * part);
            self.dot(x.round() as usize, y.round() as usize, layer);
        }
    }

    /// Paints the dots, each in the style of its layer.
    pub fn paint(&self, buffer: &mut Buffer, styles: &[Style]) {
        let wide = usize::from(self.area.width).max(1);
        for (index, &(dots, layer)) in self.cells.iter().enumerate() {
            let (x, y) = (self.area.x + (index % wide) as u16, self.area.y + (index / wide) as u16);
            let symbol = char::from_u32(0x2800 + u32::from(dots)).unwrap_or(' ');
            if dots != 0
                && let Some(cell) = buffer.cell_mut((x, y))
            {
                cell.set_char(symbol).set_style(styles.get(layer).copied().unwrap_or_default());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_layer_takes_the_cell() {
        let area = Rect::new(0, 0, 3, 1);
        let mut dots = Dots::new(area);
        dots.column(0, 0, 3, 0);
        dots.line((2, 0), (5, 3), 1);
        dots.dot(0, 0, 1);
        dots.dot(99, 99, 1);
        let mut buffer = Buffer::empty(area);
        dots.paint(&mut buffer, &[]);
        let symbols: String = buffer.content().iter().map(ratatui::buffer::Cell::symbol).collect();
        assert_eq!(symbols, "⠁⠑⢄");
    }
}
