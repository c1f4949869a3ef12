//! Values over steps in bounded memory, however long the run.

use std::collections::VecDeque;

/// Buckets that the whole run is kept in.
const BUCKETS: usize = 1024;
/// Latest values that are kept one by one.
const RECENT: usize = 2048;

/// Neighbouring values, summed up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// Steps of the first and the last value.
    pub first: f64,
    pub last: f64,
    pub min: f64,
    pub max: f64,
    pub sum: f64,
    pub count: u64,
}

impl Bucket {
    fn of(x: f64, y: f64) -> Self {
        Self { first: x, last: x, min: y, max: y, sum: y, count: 1 }
    }

    pub fn mean(&self) -> f64 {
        self.sum / self.count.max(1) as f64
    }

    /// Middle of its steps.
    pub fn center(&self) -> f64 {
        f64::midpoint(self.first, self.last)
    }

    fn join(&mut self, later: &Self) {
        self.last = later.last;
        self.min = self.min.min(later.min);
        self.max = self.max.max(later.max);
        self.sum += later.sum;
        self.count += later.count;
    }
}

/// A whole run in `BUCKETS` buckets of equal count, which double when they are used up, and its end value by value.
#[derive(Debug, Clone)]
pub struct Series {
    buckets: Vec<Bucket>,
    /// Values in a full bucket.
    capacity: u64,
    recent: VecDeque<(f64, f64)>,
}

impl Default for Series {
    fn default() -> Self {
        Self { buckets: Vec::new(), capacity: 1, recent: VecDeque::new() }
    }
}

impl Series {
    /// Adds the value at step `x`. Later values are dropped first: a resumed run repeats steps. Values that are not finite
    /// leave a gap.
    pub fn push(&mut self, x: f64, y: f64) {
        self.truncate(x);
        if !y.is_finite() {
            return;
        }
        let value = Bucket::of(x, y);
        match self.buckets.last_mut() {
            Some(bucket) if bucket.count < self.capacity => bucket.join(&value),
            _ => self.buckets.push(value),
        }
        if self.buckets.len() > BUCKETS {
            self.halve();
        }
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((x, y));
    }

    /// Forgets what lies at `x` or later.
    fn truncate(&mut self, x: f64) {
        while self.buckets.last().is_some_and(|bucket| bucket.first >= x) {
            self.buckets.pop();
        }
        if let Some(bucket) = self.buckets.last_mut() {
            bucket.last = bucket.last.min(x - 1.0).max(bucket.first);
        }
        while self.recent.back().is_some_and(|&(step, _)| step >= x) {
            self.recent.pop_back();
        }
    }

    /// Joins every two buckets to one.
    fn halve(&mut self) {
        let pairs = std::mem::take(&mut self.buckets);
        self.buckets = pairs
            .chunks(2)
            .map(|pair| {
                let mut joined = pair[0];
                pair[1..].iter().for_each(|later| joined.join(later));
                joined
            })
            .collect();
        self.capacity *= 2;
    }

    /// What lies between two steps: value by value where all of it is recent, else buckets.
    pub fn between(&self, from: f64, to: f64) -> Vec<Bucket> {
        if self.recent.front().is_some_and(|&(x, _)| x <= from) || self.capacity == 1 {
            let inside = self.recent.iter().filter(|&&(x, _)| x >= from && x <= to);
            return inside.map(|&(x, y)| Bucket::of(x, y)).collect();
        }
        self.buckets.iter().filter(|bucket| bucket.last >= from && bucket.first <= to).copied().collect()
    }

    /// The last `count` values.
    pub fn tail(&self, count: usize) -> impl DoubleEndedIterator<Item = f64> {
        self.recent.iter().skip(self.recent.len().saturating_sub(count)).map(|&(_, y)| y)
    }

    /// The latest value with its step.
    pub fn last(&self) -> Option<(f64, f64)> {
        self.recent.back().copied()
    }

    /// First and last step.
    pub fn extent(&self) -> Option<(f64, f64)> {
        Some((self.buckets.first()?.first, self.buckets.last()?.last))
    }

    pub fn is_empty(&self) -> bool {
        self.recent.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ten_million_values_fit_and_keep_their_extremes() {
        let mut series = Series::default();
        for step in 1..=10_000_000_u32 {
            let spike = if step == 1234 { 99.0 } else { 0.0 };
            series.push(f64::from(step), 2.0 + spike);
        }
        assert!(series.buckets.len() <= BUCKETS && series.recent.len() <= RECENT);
        let all = series.between(0.0, 2e7);
        assert_eq!(all.iter().map(|bucket| bucket.count).sum::<u64>(), 10_000_000);
        assert_eq!(all.iter().map(|bucket| bucket.max).fold(0.0, f64::max), 101.0);
        assert_eq!(series.extent(), Some((1.0, 1e7)));
        assert_eq!(series.between(9_999_000.0, 1e7).len(), 1001);
    }

    #[test]
    fn a_resumed_run_overwrites_what_it_repeats() {
        let mut series = Series::default();
        (1..=100).for_each(|step| series.push(f64::from(step), 1.0));
        (50..=60).for_each(|step| series.push(f64::from(step), 3.0));
        assert_eq!(series.last(), Some((60.0, 3.0)));
        let all = series.between(0.0, 200.0);
        assert_eq!(all.len(), 60);
        assert_eq!(all.iter().filter(|bucket| bucket.max > 2.0).count(), 11);
    }

    proptest! {
        #[test]
        fn buckets_stay_in_order(steps in prop::collection::vec((0_u32..5000, any::<f64>()), 0..300)) {
            let mut series = Series::default();
            for (step, value) in steps {
                series.push(f64::from(step), value);
            }
            let all = series.between(f64::NEG_INFINITY, f64::INFINITY);
            prop_assert!(all.windows(2).all(|pair| pair[0].last < pair[1].first));
            prop_assert!(all.iter().all(|bucket| bucket.min <= bucket.max));
        }
    }
}
