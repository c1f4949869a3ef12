//! A buffer as a picture: for the documentation, from the same cells that a terminal gets.

use std::fmt::Write;

use ratatui::buffer::{Buffer, Cell};
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier};

use super::draw::text::width;
use super::render;
use super::state::State;
use super::theme::Theme;

/// Size of a cell and of the margin, in pixels.
const CELL: (f64, f64) = (8.4, 17.0);
const MARGIN: f64 = 14.0;
const FONT_SIZE: f64 = 14.0;
/// From the top of a cell to the line that letters stand on.
const BASELINE: f64 = 13.0;

/// The 16 first colours, as most terminals show them.
const SIXTEEN: [u32; 16] = [
    0x1d1f21, 0xcc6666, 0xa0b55c, 0xd9b45b, 0x6d9cbe, 0xb08cc0, 0x76b5ac, 0xc5c8c6, 0x70757d, 0xe06c75,
    0x98c379, 0xe5c07b, 0x61afef, 0xc678dd, 0x56b6c2, 0xffffff,
];

/// The dashboard as a picture of so many columns and rows.
pub fn still(state: &State, theme: Theme, (columns, rows): (u16, u16)) -> String {
    let mut buffer = Buffer::empty(Rect::new(0, 0, columns, rows));
    render(state, theme, &mut buffer);
    svg(&buffer, theme)
}

/// Writes the cells as text runs with fill colours, on a background with round corners.
pub fn svg(buffer: &Buffer, theme: Theme) -> String {
    let (columns, rows) = (f64::from(buffer.area.width), f64::from(buffer.area.height));
    let (wide, high) = (columns * CELL.0 + 2.0 * MARGIN, rows * CELL.1 + 2.0 * MARGIN);
    let (paper, ink) = if theme.is_light() { (0xfafafa, 0x24292f) } else { (0x16181d, 0xd7dae0) };
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {wide:.0} {high:.0}\" width=\"{wide:.0}\" \
         height=\"{high:.0}\">\n<rect width=\"100%\" height=\"100%\" rx=\"10\" fill=\"#{paper:06x}\"/>\n\
         <g font-family=\"ui-monospace,SFMono-Regular,Menlo,'DejaVu Sans Mono',monospace\" \
         font-size=\"{FONT_SIZE}\" fill=\"#{ink:06x}\" xml:space=\"preserve\">\n"
    );
    for row in 0..usize::from(buffer.area.height) {
        let start = row * usize::from(buffer.area.width);
        let cells = &buffer.content[start..start + usize::from(buffer.area.width)];
        backgrounds(&mut text, cells, row);
        runs(&mut text, cells, row);
    }
    text.push_str("</g>\n</svg>\n");
    text
}

/// One rectangle for neighbouring cells of the same background.
fn backgrounds(text: &mut String, cells: &[Cell], row: usize) {
    let mut fills: Vec<Option<u32>> = cells.iter().map(|cell| rgb(cell.bg)).collect();
    for (x, cell) in cells.iter().enumerate() {
        // The second cell of a wide letter holds nothing of its own.
        if width(cell.symbol()) > 1 && x + 1 < fills.len() {
            fills[x + 1] = fills[x];
        }
    }
    let mut x = 0;
    for group in fills.chunk_by(|left, right| left == right) {
        if let Some(fill) = group[0] {
            let (left, top) = (MARGIN + x as f64 * CELL.0, MARGIN + row as f64 * CELL.1);
            let wide = group.len() as f64 * CELL.0;
            let _ = writeln!(
                text,
                "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{wide:.1}\" height=\"{:.1}\" fill=\"#{fill:06x}\"/>",
                CELL.1
            );
        }
        x += group.len();
    }
}

/// One text element for neighbouring cells of the same colour; `textLength` keeps columns aligned in any font.
fn runs(text: &mut String, cells: &[Cell], row: usize) {
    let mut x = 0;
    while x < cells.len() {
        let first = &cells[x];
        let mut end = x;
        let mut run = String::new();
        while end < cells.len() && (cells[end].fg, cells[end].modifier) == (first.fg, first.modifier) {
            let wide = width(cells[end].symbol()) > 1;
            // A wide letter stands alone, because fonts differ in its width.
            if wide && end > x {
                break;
            }
            run.push_str(cells[end].symbol());
            end += width(cells[end].symbol()).max(1);
            if wide {
                break;
            }
        }
        let end = end.min(cells.len());
        let blanks = run.len() - run.trim_start_matches(' ').len();
        let shown = run.trim_matches(' ');
        if !shown.is_empty() {
            element(text, first, shown, (x + blanks, row));
        }
        x = end.max(x + 1);
    }
}

/// Writes one text element, on its base line.
fn element(text: &mut String, cell: &Cell, shown: &str, (column, row): (usize, usize)) {
    let (left, base) = (MARGIN + column as f64 * CELL.0, MARGIN + row as f64 * CELL.1 + BASELINE);
    let fill = rgb(cell.fg).map_or(String::new(), |fill| format!(" fill=\"#{fill:06x}\""));
    let bold = if cell.modifier.contains(Modifier::BOLD) { " font-weight=\"bold\"" } else { "" };
    let dim = if cell.modifier.contains(Modifier::DIM) { " opacity=\"0.6\"" } else { "" };
    let length = width(shown) as f64 * CELL.0;
    let _ = writeln!(
        text,
        "<text x=\"{left:.1}\" y=\"{base:.1}\" textLength=\"{length:.1}\" lengthAdjust=\"spacingAndGlyphs\"\
         {fill}{bold}{dim}>{}</text>",
        escaped(shown)
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// None for the terminal's own colour.
fn rgb(color: Color) -> Option<u32> {
    let index = match color {
        Color::Reset => return None,
        Color::Rgb(red, green, blue) => return Some(u32::from_be_bytes([0, red, green, blue])),
        Color::Indexed(index) => index,
        Color::Black => 0,
        Color::Red => 1,
        Color::Green => 2,
        Color::Yellow => 3,
        Color::Blue => 4,
        Color::Magenta => 5,
        Color::Cyan => 6,
        Color::Gray => 7,
        Color::DarkGray => 8,
        Color::LightRed => 9,
        Color::LightGreen => 10,
        Color::LightYellow => 11,
        Color::LightBlue => 12,
        Color::LightMagenta => 13,
        Color::LightCyan => 14,
        Color::White => 15,
    };
    Some(indexed(index))
}

/// The palette of 256: 16 named ones, a cube of 6 x 6 x 6, 24 greys.
fn indexed(index: u8) -> u32 {
    const LEVELS: [u8; 6] = [0, 95, 135, 175, 215, 255];
    match index {
        0..16 => SIXTEEN[usize::from(index)],
        16..232 => {
            let cube = usize::from(index - 16);
            let (red, green, blue) = (LEVELS[cube / 36], LEVELS[cube / 6 % 6], LEVELS[cube % 6]);
            u32::from_be_bytes([0, red, green, blue])
        }
        232.. => {
            let grey = 8 + 10 * (index - 232);
            u32::from_be_bytes([0, grey, grey, grey])
        }
    }
}

#[cfg(test)]
mod tests {
    use ratatui::style::Style;

    use super::*;

    #[test]
    fn cells_become_runs() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 12, 1));
        buffer.set_string(1, 0, "a<b", Style::new().fg(Color::Indexed(196)));
        buffer.set_string(5, 0, "漢 x", Style::new().bg(Color::Indexed(232)));
        let picture = svg(&buffer, Theme::DARK);
        assert!(picture.contains("fill=\"#ff0000\">a&lt;b</text>"), "{picture}");
        assert!(
            picture.contains("textLength=\"16.8\" lengthAdjust=\"spacingAndGlyphs\">漢</text>"),
            "{picture}"
        );
        assert!(picture.contains("width=\"33.6\" height=\"17.0\" fill=\"#080808\""), "{picture}");
        assert_eq!(picture.matches("<text").count(), 3);
    }
}
