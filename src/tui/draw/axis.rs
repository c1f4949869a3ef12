//! Numbers at the edges of a chart.

use crate::tui::format;

/// How values become places from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    pub from: f64,
    pub to: f64,
    pub log: bool,
}

/// How far apart the ends of a range have to be, as a part of their size, to be told apart by their labels.
const NARROWEST: f64 = 1e-6;

impl Scale {
    /// A range around values, with some room; logarithmic only where all are positive.
    pub fn around(values: impl Iterator<Item = f64>, log: bool) -> Self {
        let finite = values.filter(|value| value.is_finite());
        let join = |(low, high): (f64, f64), value: f64| (low.min(value), high.max(value));
        let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), join);
        if low > high {
            return Self { from: 0.0, to: 1.0, log: false };
        }
        if log && low > 0.0 {
            return Self { from: low / 1.1, to: high * 1.1, log: true };
        }
        let size = low.abs().max(high.abs());
        let room = if high - low > size * NARROWEST { (high - low) * 0.05 } else { size * 0.1 };
        let room = if room > 0.0 && room.is_finite() { room } else { 1.0 };
        // Counts and times do not go below 0, so that their axis does not either.
        let from = if low >= 0.0 { (low - room).max(0.0) } else { low - room };
        Self { from, to: high + room, log: false }
    }

    /// The same with 0 at the bottom.
    pub fn with_zero(self) -> Self {
        if self.log || self.from <= 0.0 { self } else { Self { from: 0.0, ..self } }
    }

    /// 0 at the start of the range, 1 at its end; values outside are moved to the nearer end.
    pub fn place(&self, value: f64) -> f64 {
        let part = if self.log {
            (value.max(f64::MIN_POSITIVE) / self.from).ln() / (self.to / self.from).ln()
        } else {
            // Halves, because the difference of two large ends may overflow.
            (value / 2.0 - self.from / 2.0) / (self.to / 2.0 - self.from / 2.0)
        };
        if part.is_nan() { 0.0 } else { part.clamp(0.0, 1.0) }
    }

    /// At most `most` round values inside the range.
    pub fn ticks(&self, most: usize) -> Vec<f64> {
        if self.log && self.to / self.from > 20.0 { self.decades(most) } else { self.steps(most) }
    }

    fn steps(&self, most: usize) -> Vec<f64> {
        let span = self.to - self.from;
        if most == 0 || !span.is_finite() || span <= 0.0 {
            return Vec::new();
        }
        let rough = span / most as f64;
        let power = 10_f64.powf(rough.log10().floor());
        let nice = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(|nice| nice * power >= rough * 0.999);
        let step = nice.unwrap_or(10.0) * power;
        let first = (self.from / step).ceil();
        let ticks = (0..=most).map(|index| (first + index as f64) * step);
        ticks.filter(|tick| *tick <= self.to && tick.is_finite()).take(most).collect()
    }

    fn decades(&self, most: usize) -> Vec<f64> {
        let (first, last) = (self.from.log10().ceil() as i32, self.to.log10().floor() as i32);
        let every = ((last - first + 1).max(1) as usize).div_ceil(most.max(1));
        (first..=last).step_by(every).map(|power| 10_f64.powi(power)).collect()
    }
}

/// What the values of an axis are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Number,
    /// A rate: thousands have prefixes.
    Count,
    Ms,
    Bytes,
}

impl Unit {
    /// Round values; bytes are round in their binary unit.
    pub fn ticks(self, scale: &Scale, most: usize) -> Vec<f64> {
        if self != Self::Bytes || scale.to < 1.0 || scale.log {
            return scale.ticks(most);
        }
        let unit = 1024_f64.powf((scale.to.log2() / 10.0).floor());
        let scaled = Scale { from: scale.from / unit, to: scale.to / unit, log: false };
        scaled.ticks(most).into_iter().map(|tick| tick * unit).collect()
    }

    /// One text for each tick, short and with its unit.
    pub fn labels(self, ticks: &[f64]) -> Vec<String> {
        let each =
            |label: fn(f64) -> String| ticks.iter().map(|&tick| format::rounded(label(tick))).collect();
        match self {
            Self::Number => labels(ticks),
            Self::Count => each(format::compact),
            Self::Ms => each(format::ms),
            Self::Bytes => each(format::bytes),
        }
    }
}

/// Labels with just enough digits to tell neighbours apart.
fn labels(ticks: &[f64]) -> Vec<String> {
    let size = ticks.iter().fold(0.0_f64, |size, tick| size.max(tick.abs()));
    let step = match ticks {
        [first, second, ..] => (second - first).abs(),
        _ => size,
    };
    if !(1e-3..1e4).contains(&size) || step <= 0.0 {
        return ticks.iter().map(|&tick| format::rounded(format::number(tick))).collect();
    }
    // One digit more for steps of 2.5.
    let fine = |step: f64, digits: i32| (step * 10_f64.powi(digits)).fract().abs() < 1e-6;
    let digits = (0..6).find(|&digits| fine(step + 1e-9, digits)).unwrap_or(6).clamp(0, 6) as usize;
    ticks.iter().map(|tick| format!("{tick:.digits$}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labelled(from: f64, to: f64, log: bool, most: usize) -> Vec<String> {
        labels(&Scale { from, to, log }.ticks(most))
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(labelled(0.0, 4.3, false, 5), ["0", "1", "2", "3", "4"]);
        assert_eq!(labelled(1.91, 2.43, false, 6), ["2.0", "2.1", "2.2", "2.3", "2.4"]);
        assert_eq!(labelled(0.0, 1.0, false, 4), ["0.00", "0.25", "0.50", "0.75", "1.00"][..4]);
        assert_eq!(labelled(0.5, 2000.0, true, 9), ["1", "10", "100", "1000"]);
        assert_eq!(labelled(0.0, 2e-4, false, 2), ["0", "1e-4"]);
        let memory = Unit::Bytes.ticks(&Scale { from: 0.0, to: 3.2e9, log: false }, 4);
        assert_eq!(Unit::Bytes.labels(&memory), ["0 B", "1 GiB", "2 GiB"]);
        assert_eq!(Unit::Count.labels(&[0.0, 2500.0, 3000.0]), ["0", "2.5k", "3k"]);
    }

    proptest! {
        #[test]
        fn any_values_have_a_scale(values in prop::collection::vec(any::<f64>(), 0..5), log: bool, most in 0_usize..9) {
            let scale = Scale::around(values.iter().copied(), log);
            prop_assert!(scale.ticks(most).len() <= most.max(1));
            for value in values {
                prop_assert!((0.0..=1.0).contains(&scale.place(value)));
            }
        }
    }
}
