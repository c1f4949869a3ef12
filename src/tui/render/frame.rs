//! Borders with a title.

use ratatui::layout::Rect;

use super::Canvas;
use crate::tui::draw::text::width;
use crate::tui::theme::Role;

/// Corners and edges: thin, and heavy for the focus, which has to be seen without colours.
const THIN: [&str; 6] = ["╭", "╮", "╰", "╯", "─", "│"];
const HEAVY: [&str; 6] = ["┏", "┓", "┗", "┛", "━", "┃"];

/// Draws a border and returns what is inside, with a blank column at both sides where there is room.
pub fn frame(canvas: &mut Canvas, area: Rect, title: &str, focused: bool) -> Rect {
    let (wide, high) = (usize::from(area.width), usize::from(area.height));
    if wide < 4 || high < 3 {
        return area;
    }
    let [left_top, right_top, left_bottom, right_bottom, flat, upright] = if focused { HEAVY } else { THIN };
    let role = if focused { Role::Focus } else { Role::Border };
    let bar = flat.repeat(wide - 2);
    canvas.put(area, 0, 0, &format!("{left_top}{bar}{right_top}"), role);
    canvas.put(area, 0, high - 1, &format!("{left_bottom}{bar}{right_bottom}"), role);
    for y in 1..high - 1 {
        canvas.put(area, 0, y, upright, role);
        canvas.put(area, wide - 1, y, upright, role);
    }
    if width(title) + 4 < wide {
        let role = if focused { Role::Focus } else { Role::Text };
        canvas.put(area, 2, 0, &format!(" {title} "), role);
    }
    let side = if wide > 24 { 2 } else { 1 };
    Rect { x: area.x + side, y: area.y + 1, width: area.width - 2 * side, height: area.height - 2 }
}
