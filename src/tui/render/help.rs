//! All keys.

use ratatui::layout::Rect;

use super::Canvas;
use crate::tui::state::{Session, State};
use crate::tui::theme::Role;

/// Keys and what they do.
type Keys = &'static [(&'static str, &'static str)];

/// Groups of keys, and whether a group steers the run.
const KEYS: [(&str, bool, Keys); 4] = [
    (
        "the run",
        true,
        &[
            ("space", "pause or resume"),
            ("c", "save a checkpoint"),
            ("e", "evaluate"),
            ("s", "sample a prompt"),
            ("r", "change the learning rate"),
            ("x", "stop, keep the best"),
        ],
    ),
    (
        "charts",
        false,
        &[
            ("+ -", "zoom, also the wheel"),
            ("h l, ← →", "pan"),
            ("0", "show everything"),
            ("y", "logarithmic axis"),
        ],
    ),
    (
        "panes",
        false,
        &[
            ("1 to 9", "focus a pane"),
            ("tab", "focus the next pane"),
            ("enter", "enlarge the pane"),
            ("j k, pages", "scroll lists and logs"),
            ("?", "this help"),
            ("q, ctrl-c", "quit or detach"),
        ],
    ),
    (
        "replay",
        false,
        &[
            ("space", "play or stand still"),
            ("← →", "seek"),
            ("home end", "first, last"),
            ("< >", "slower, faster"),
        ],
    ),
];

/// Rows and columns that two columns of groups take.
pub const SIZE: (u16, u16) = (76, 16);
const KEY_WIDTH: usize = 12;

/// Two groups in each of two columns; those that do nothing here are grey.
pub fn draw(canvas: &mut Canvas, area: Rect, state: &State) {
    let steers = state.refusal().is_none();
    let replay = state.session == Session::Replay;
    let single = area.width < SIZE.0 - 4;
    let column = usize::from(area.width) / 2 + 3;
    let mut heights = [0; 2];
    for (index, (title, steering, keys)) in KEYS.iter().enumerate() {
        let side = if single { 0 } else { index / 2 };
        let (x, y) = (side * column, heights[side]);
        let grey = (*steering && !steers) || (*title == "replay" && !replay);
        let title_role = if grey { Role::Dim } else { Role::Focus };
        canvas.put(area, x, y, title, title_role);
        for (row, (key, what)) in keys.iter().enumerate() {
            let key_role = if grey { Role::Dim } else { Role::Key };
            canvas.put(area, x, y + row + 1, key, key_role);
            let text_role = if grey { Role::Dim } else { Role::Text };
            canvas.put(area, x + KEY_WIDTH, y + row + 1, what, text_role);
        }
        heights[side] += keys.len() + 2;
    }
    if let Some(reason) = state.refusal() {
        canvas.put(area, 0, usize::from(area.height) - 1, &format!("grey: {reason}"), Role::Dim);
    }
}
