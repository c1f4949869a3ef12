//! The mouse: everything it does has a key, too.

use ratatui::crossterm::event::{MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::{Position, Rect};

use crate::tui::state::State;
use crate::tui::view::layout;

/// Lines that a notch of the wheel scrolls by.
const NOTCH: usize = 3;

impl State {
    /// A click focuses; the wheel zooms charts and scrolls lists. `area` is the whole terminal.
    pub fn mouse(&mut self, mouse: MouseEvent, area: Rect) {
        if self.ui.overlay.is_some() {
            return;
        }
        let at = Position { x: mouse.column, y: mouse.row };
        let layout = layout(area, &self.ui);
        let panes = layout.panes.iter().map(|&(pane, rect)| (rect, pane));
        let tabs = layout.tabs.iter().map(|&(pane, rect)| (rect, pane));
        let Some(pane) = panes.chain(tabs).find(|(rect, _)| rect.contains(at)).map(|(_, pane)| pane) else {
            return;
        };
        let extent = self.run.extent();
        match mouse.kind {
            MouseEventKind::Down(MouseButton::Left) => self.ui.focus_on(pane),
            MouseEventKind::ScrollUp if pane.is_chart() => self.ui.zoom.closer(extent),
            MouseEventKind::ScrollDown if pane.is_chart() => self.ui.zoom.wider(),
            MouseEventKind::ScrollUp if pane == self.ui.focus => self.scroll(true, NOTCH),
            MouseEventKind::ScrollDown if pane == self.ui.focus => self.scroll(false, NOTCH),
            _ => {}
        }
    }
}
