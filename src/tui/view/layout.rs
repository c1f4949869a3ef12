//! Where everything is, for any size of terminal.

use ratatui::layout::{Constraint, Rect};

use crate::tui::draw::text::width;
use crate::tui::input::{Pane, Ui};

/// How much fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// A few lines of text.
    Tiny,
    /// The focused pane, tabs, and a summary.
    Small,
    /// Six panes, one of them chosen by the focus.
    Medium,
    /// All panes.
    Large,
}

impl Size {
    /// The size that fits an area.
    pub fn of(area: Rect) -> Self {
        match (area.width, area.height) {
            (160.., 45..) => Self::Large,
            (100.., 32..) => Self::Medium,
            (40.., 12..) => Self::Small,
            _ => Self::Tiny,
        }
    }
}

/// Areas; those that are not shown are empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    pub size: Size,
    pub header: Rect,
    pub tabs: Vec<(Pane, Rect)>,
    pub panes: Vec<(Pane, Rect)>,
    pub summary: Rect,
    pub slider: Rect,
    pub footer: Rect,
}

/// Rows of the fixed parts.
const HEADER: u16 = 2;
const SUMMARY: u16 = 2;

/// Lays the dashboard out.
pub fn layout(area: Rect, ui: &Ui) -> Layout {
    let size = Size::of(area);
    let single = size == Size::Small || ui.maximised;
    let row = |shown: bool| Constraint::Length(u16::from(shown));
    if size == Size::Tiny {
        let empty = Rect { width: 0, height: 0, ..area };
        let (panes, tabs) = (Vec::new(), Vec::new());
        return Layout { size, header: area, tabs, panes, summary: empty, slider: empty, footer: empty };
    }
    let [header, tabs, body, summary, slider, footer] = ratatui::layout::Layout::vertical([
        Constraint::Length(HEADER),
        row(single),
        Constraint::Fill(1),
        Constraint::Length(if size == Size::Small { SUMMARY } else { 0 }),
        row(ui.slider.is_some()),
        row(true),
    ])
    .areas(area);
    let panes = match size {
        _ if single => vec![(ui.focus, body)],
        Size::Medium => medium(body, ui.focus),
        _ => large(body),
    };
    Layout {
        size,
        header,
        tabs: if single { tabs_in(tabs) } else { Vec::new() },
        panes,
        summary,
        slider,
        footer,
    }
}

/// Tabs beside each other, with as much space between them as there is room for.
fn tabs_in(area: Rect) -> Vec<(Pane, Rect)> {
    let wide: usize = Pane::ALL.iter().map(|pane| width(pane.name()) + 2).sum();
    let gap = (usize::from(area.width).saturating_sub(wide) / Pane::ALL.len()).min(3) as u16;
    let mut x = area.x;
    Pane::ALL
        .into_iter()
        .map(|pane| {
            let tab = Rect { x, width: width(pane.name()) as u16 + 2, ..area };
            x = x.saturating_add(tab.width + gap);
            (pane, tab.intersection(area))
        })
        .collect()
}

/// Splits an area by parts of its height.
fn rows<const N: usize>(area: Rect, parts: [u16; N]) -> [Rect; N] {
    ratatui::layout::Layout::vertical(parts.map(Constraint::Fill)).areas(area)
}

/// Splits an area by parts of its width.
fn columns<const N: usize>(area: Rect, parts: [u16; N]) -> [Rect; N] {
    ratatui::layout::Layout::horizontal(parts.map(Constraint::Fill)).areas(area)
}

/// Five panes that are always there, and one for whichever other is focused.
fn medium(body: Rect, focus: Pane) -> Vec<(Pane, Rect)> {
    let [top, middle, bottom] = rows(body, [8, 8, 6]);
    let ([loss, speed], [latency, rate], [other, events]) =
        (columns(top, [3, 2]), columns(middle, [3, 2]), columns(bottom, [3, 2]));
    let chosen = match focus {
        Pane::Memory | Pane::Plan | Pane::Layers | Pane::Samples => focus,
        _ => Pane::Memory,
    };
    vec![
        (Pane::Loss, loss),
        (Pane::Throughput, speed),
        (Pane::Latency, latency),
        (Pane::Rate, rate),
        (chosen, other),
        (Pane::Events, events),
    ]
}

/// All nine panes in three rows.
fn large(body: Rect) -> Vec<(Pane, Rect)> {
    let [top, middle, bottom] = rows(body, [20, 19, 17]);
    let ([loss, speed, rate], [latency, memory, plan], [layers, samples, events]) =
        (columns(top, [2, 1, 1]), columns(middle, [2, 1, 1]), columns(bottom, [1, 1, 1]));
    vec![
        (Pane::Loss, loss),
        (Pane::Throughput, speed),
        (Pane::Rate, rate),
        (Pane::Latency, latency),
        (Pane::Memory, memory),
        (Pane::Plan, plan),
        (Pane::Layers, layers),
        (Pane::Samples, samples),
        (Pane::Events, events),
    ]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_pane_can_be_seen_at_every_size() {
        for (wide, high) in [(80, 24), (120, 40), (200, 60)] {
            for focus in Pane::ALL {
                let ui = Ui { focus, ..Ui::default() };
                let layout = layout(Rect::new(0, 0, wide, high), &ui);
                assert!(layout.panes.iter().any(|(pane, rect)| *pane == focus && !rect.is_empty()));
            }
        }
    }

    proptest! {
        #[test]
        fn panes_stay_inside_and_apart(wide in 0_u16..260, high in 0_u16..100, focus in 0_usize..9, maximised: bool) {
            let area = Rect::new(0, 0, wide, high);
            let ui = Ui { focus: Pane::ALL[focus], maximised, ..Ui::default() };
            let layout = layout(area, &ui);
            for (index, (_, rect)) in layout.panes.iter().enumerate() {
                prop_assert_eq!(area.intersection(*rect), *rect);
                for (_, other) in &layout.panes[index + 1..] {
                    prop_assert!(!rect.intersects(*other));
                }
            }
        }
    }
}
