//! Which steps the charts show.

/// The fewest steps that fill a chart.
const FEWEST: f64 = 8.0;
/// How often the view may be halved.
const DEEPEST: u32 = 24;

/// A view of all steps, or of a part that is halved with every level.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Zoom {
    /// 0 shows everything.
    pub level: u32,
    /// Last step in view; none follows the run.
    pub end: Option<f64>,
}

impl Zoom {
    /// The steps in view, of those that there are.
    pub fn window(&self, extent: (f64, f64)) -> (f64, f64) {
        let (first, last) = extent;
        let span = self.span(extent);
        let end = self.end.unwrap_or(last).min(last).max((first + span).min(last));
        if self.level == 0 { (first, last.max(first + 1.0)) } else { (end - span, end) }
    }

    /// Steps in view.
    fn span(&self, (first, last): (f64, f64)) -> f64 {
        let all = last - first;
        (all / f64::from(1_u32 << self.level.min(DEEPEST))).max(FEWEST.min(all)).max(1.0)
    }

    /// Halves the view, down to a few steps.
    pub fn closer(&mut self, extent: (f64, f64)) {
        if self.level < DEEPEST && self.span(extent) > FEWEST {
            self.level += 1;
        }
    }

    /// Doubles the view.
    pub fn wider(&mut self) {
        self.level = self.level.saturating_sub(1);
        if self.level == 0 {
            self.end = None;
        }
    }

    /// Moves by a part of the view; at the end it follows the run again.
    pub fn pan(&mut self, part: f64, extent: (f64, f64)) {
        if self.level == 0 {
            return;
        }
        let (from, end) = self.window(extent);
        let moved = end + (end - from) * part;
        self.end = (moved < extent.1).then(|| moved.max(extent.0 + (end - from)));
    }

    /// Shows everything again, and follows the run.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_view_follows_until_it_is_moved() {
        let mut zoom = Zoom::default();
        assert_eq!(zoom.window((0.0, 1000.0)), (0.0, 1000.0));
        zoom.closer((0.0, 1000.0));
        assert_eq!(zoom.window((0.0, 1000.0)), (500.0, 1000.0));
        zoom.pan(-0.5, (0.0, 1000.0));
        assert_eq!(zoom.window((0.0, 2000.0)).1, 1000.0);
        zoom.pan(9.0, (0.0, 2000.0));
        assert_eq!(zoom.end, None);
    }

    proptest! {
        #[test]
        fn a_view_is_never_empty(first in 0_u32..1000, length in 0_u32..1_000_000, moves in prop::collection::vec(0_u8..4, 0..60)) {
            let extent = (f64::from(first), f64::from(first) + f64::from(length));
            let mut zoom = Zoom::default();
            for step in moves {
                match step {
                    0 => zoom.closer(extent),
                    1 => zoom.wider(),
                    2 => zoom.pan(-0.5, extent),
                    _ => zoom.pan(0.5, extent),
                }
                let (from, to) = zoom.window(extent);
                prop_assert!(to > from && to <= extent.1.max(extent.0 + 1.0), "{from} {to}");
            }
        }
    }
}
