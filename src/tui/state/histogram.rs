//! How often a step took how long.

/// Milliseconds that the first bucket starts at.
const LOWEST: f64 = 1e-2;
/// Up to 10^9 ms, which is eleven days.
const DECADES: usize = 11;
/// Neighbouring buckets differ by 4.9%.
const PER_DECADE: usize = 48;

/// Counts in buckets whose bounds grow by a constant factor.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    sum: f64,
    min: f64,
    max: f64,
}

impl Default for Histogram {
    fn default() -> Self {
        let counts = vec![0; DECADES * PER_DECADE];
        Self { counts, total: 0, sum: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY }
    }
}

impl Histogram {
    /// Adds a time in ms; what is not a time is left out.
    pub fn push(&mut self, ms: f64) {
        if !ms.is_finite() || ms < 0.0 {
            return;
        }
        self.counts[index(ms)] += 1;
        self.total += 1;
        self.sum += ms;
        self.min = self.min.min(ms);
        self.max = self.max.max(ms);
    }

    /// How many times were added.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The exact mean in ms.
    pub fn mean(&self) -> Option<f64> {
        (self.total > 0).then(|| self.sum / self.total as f64)
    }

    /// Shortest and longest time in ms.
    pub fn extent(&self) -> Option<(f64, f64)> {
        (self.total > 0).then_some((self.min, self.max))
    }

    /// The time in ms that a share `q` of the steps did not exceed, to half a bucket.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        if self.total == 0 {
            return None;
        }
        let rank = (q.clamp(0.0, 1.0) * (self.total - 1) as f64).round() as u64;
        let mut below = 0;
        for (index, &count) in self.counts.iter().enumerate() {
            below += count;
            if below > rank {
                return Some((bound(index) * bound(index + 1)).sqrt().clamp(self.min, self.max));
            }
        }
        Some(self.max)
    }

    /// Counts of at most `most` bars of equal width on a logarithmic axis, and the axis' ends in ms.
    pub fn bars(&self, most: usize) -> (Vec<u64>, f64, f64) {
        let Some((min, max)) = self.extent() else { return (Vec::new(), 1.0, 10.0) };
        let (first, last) = (index(min), index(max));
        // Some room on both sides, so that equal times do not make one bar as wide as the pane.
        let (first, last) = (first.saturating_sub(2), (last + 2).min(self.counts.len() - 1));
        let width = (last - first + 1).div_ceil(most.max(1));
        let bars: Vec<u64> = self.counts[first..=last].chunks(width).map(|part| part.iter().sum()).collect();
        let end = first + bars.len() * width;
        (bars, bound(first), bound(end))
    }
}

/// The bucket that a time falls into; the last one takes what is longer.
fn index(ms: f64) -> usize {
    let decades = (ms.max(LOWEST) / LOWEST).log10();
    ((decades * PER_DECADE as f64) as usize).min(DECADES * PER_DECADE - 1)
}

/// Lower bound of a bucket in ms.
fn bound(index: usize) -> f64 {
    LOWEST * 10_f64.powf(index as f64 / PER_DECADE as f64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn quantiles_are_within_a_bucket_of_the_exact_ones(mut times in prop::collection::vec(0.1_f64..1e6, 1..200)) {
            let mut histogram = Histogram::default();
            times.iter().for_each(|&ms| histogram.push(ms));
            times.sort_by(f64::total_cmp);
            for q in [0.0, 0.5, 0.95, 0.99, 1.0] {
                let exact = times[(q * (times.len() - 1) as f64).round() as usize];
                let found = histogram.quantile(q).unwrap();
                prop_assert!((found / exact).ln().abs() < 0.05, "{found} for {exact}");
            }
            let (bars, from, to) = histogram.bars(20);
            prop_assert!(bars.len() <= 20 && from <= times[0] && to >= *times.last().unwrap());
            prop_assert_eq!(bars.iter().sum::<u64>(), histogram.total());
        }
    }

    #[test]
    fn absurd_times_are_counted_or_left_out() {
        let mut histogram = Histogram::default();
        [f64::NAN, f64::INFINITY, -1.0].into_iter().for_each(|ms| histogram.push(ms));
        assert_eq!((histogram.total(), histogram.quantile(0.5)), (0, None));
        [0.0, 36e6, 1e300].into_iter().for_each(|ms| histogram.push(ms));
        assert_eq!(histogram.total(), 3);
        assert_eq!(histogram.bars(10).0.iter().sum::<u64>(), 3);
    }
}
