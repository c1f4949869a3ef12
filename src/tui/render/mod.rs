//! The dashboard as cells.

mod bottom;
mod canvas;
mod events;
mod frame;
mod header;
mod help;
mod latency;
mod layers;
mod loss;
mod memory;
mod overlay;
mod plan;
mod rate;
mod samples;
mod throughput;
mod tiny;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

pub(super) use canvas::{Canvas, below, beside, split_at};
pub(super) use frame::frame;

use super::input::Pane;
use super::state::State;
use super::theme::Theme;
use super::view::{Size, layout};

/// Draws the whole dashboard into the buffer's area.
pub fn render(state: &State, theme: Theme, buffer: &mut Buffer) {
    let area = buffer.area;
    let mut canvas = Canvas { buffer, theme };
    let layout = layout(area, &state.ui);
    if layout.size == Size::Tiny {
        tiny::draw(&mut canvas, area, state);
        return;
    }
    header::draw(&mut canvas, layout.header, state);
    header::tabs(&mut canvas, &layout.tabs, state.ui.focus);
    for &(pane, rect) in &layout.panes {
        let focused = pane == state.ui.focus;
        draw_pane(&mut canvas, pane, rect, state, focused);
    }
    bottom::summary(&mut canvas, layout.summary, state);
    bottom::slider(&mut canvas, layout.slider, state);
    bottom::footer(&mut canvas, layout.footer, state);
    overlay::draw(&mut canvas, area, state);
}

/// Draws one pane with its frame; only the focused one is scrolled.
fn draw_pane(canvas: &mut Canvas, pane: Pane, rect: Rect, state: &State, focused: bool) {
    let inner = frame(canvas, rect, &format!("{} {}", pane.index() + 1, pane.name()), focused);
    if inner.is_empty() {
        return;
    }
    match pane {
        Pane::Loss => loss::draw(canvas, inner, state),
        Pane::Throughput => throughput::draw(canvas, inner, state),
        Pane::Latency => latency::draw(canvas, inner, state, focused),
        Pane::Memory => memory::draw(canvas, inner, state),
        Pane::Rate => rate::draw(canvas, inner, state),
        Pane::Plan => plan::draw(canvas, inner, state, focused),
        Pane::Layers => layers::draw(canvas, inner, state),
        Pane::Samples => samples::draw(canvas, inner, state, focused),
        Pane::Events => events::draw(canvas, inner, state, focused),
    }
}
