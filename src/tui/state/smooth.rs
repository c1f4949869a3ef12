//! Running averages: of a noisy curve, of the pace.

use std::time::Duration;

/// Exponential moving average whose start is not pulled towards zero: m_n = (1 - d) sum d^(n-i) x_i / (1 - d^n).
#[derive(Debug, Clone)]
pub struct Average {
    decay: f64,
    sum: f64,
    /// 1 - d^n, the weights of the sum.
    weight: f64,
}

impl Average {
    /// Over about the last `horizon` values.
    pub fn over(horizon: f64) -> Self {
        Self { decay: 1.0 - 1.0 / horizon.max(1.0), sum: 0.0, weight: 0.0 }
    }

    /// Adds a value; one that is not finite changes nothing.
    pub fn push(&mut self, value: f64) {
        if value.is_finite() {
            self.sum = self.decay * self.sum + (1.0 - self.decay) * value;
            self.weight = self.decay * self.weight + (1.0 - self.decay);
        }
    }

    /// The average; none before the first value.
    pub fn value(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }
}

/// Steps over which the pace is averaged.
const PACE: f64 = 30.0;

/// Wall time that a step takes, with everything around it but pauses.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Seconds a step.
    average: Average,
    /// The step and the time of the last report.
    last: Option<(usize, Duration)>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { average: Average::over(PACE), last: None }
    }
}

impl Pace {
    /// Takes in that a step was done at `now`.
    pub fn step(&mut self, step: usize, now: Duration) {
        if let Some((before, at)) = self.last
            && step > before
        {
            self.average.push(now.saturating_sub(at).as_secs_f64() / (step - before) as f64);
        }
        self.last = Some((step, now));
    }

    /// The time until the next step is not counted.
    pub fn interrupt(&mut self) {
        self.last = None;
    }

    /// Time for `steps` more.
    pub fn remaining(&self, steps: usize) -> Option<Duration> {
        Duration::try_from_secs_f64(self.average.value()? * steps as f64).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_is_its_own_average_from_the_start() {
        let mut average = Average::over(50.0);
        assert_eq!(average.value(), None);
        for _ in 0..3 {
            average.push(4.0);
            assert!((average.value().unwrap() - 4.0).abs() < 1e-12);
        }
        average.push(f64::NAN);
        assert!((average.value().unwrap() - 4.0).abs() < 1e-12);
    }

    #[test]
    fn the_pace_leaves_pauses_out() {
        let mut pace = Pace::default();
        pace.step(1, Duration::from_secs(1));
        pace.step(3, Duration::from_secs(5));
        pace.interrupt();
        pace.step(4, Duration::from_secs(1000));
        assert_eq!(pace.remaining(10), Some(Duration::from_secs(20)));
    }
}
