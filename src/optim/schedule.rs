//! Learning rates as a pure function of the step.

use std::f64::consts::PI;

/// The curve after warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScheduleShape {
    Constant,
    Linear,
    Cosine,
}

/// Linear warm-up to the peak, then a curve down to the minimum at the last step: transformers' schedules, with a
/// floor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    pub shape: ScheduleShape,
    pub peak: f64,
    pub minimum: f64,
    pub warmup_steps: usize,
    pub total_steps: usize,
}

impl Schedule {
    /// Learning rate of optimizer step `step`, counted from 0.
    pub fn learning_rate(&self, step: usize) -> f64 {
        if step < self.warmup_steps {
            return self.peak * step as f64 / self.warmup_steps as f64;
        }
        let falling = self.total_steps.saturating_sub(self.warmup_steps).max(1) as f64;
        let progress = ((step - self.warmup_steps) as f64 / falling).min(1.0);
        let share = match self.shape {
            ScheduleShape::Constant => 1.0,
            ScheduleShape::Linear => 1.0 - progress,
            ScheduleShape::Cosine => 0.5 * (1.0 + (PI * progress).cos()),
        };
        self.minimum + (self.peak - self.minimum) * share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(shape: ScheduleShape) -> Schedule {
        Schedule { shape, peak: 1.0, minimum: 0.1, warmup_steps: 10, total_steps: 110 }
    }

    #[test]
    fn warms_up_linearly_and_reaches_the_peak() {
        let schedule = schedule(ScheduleShape::Cosine);
        assert_eq!(schedule.learning_rate(0), 0.0);
        assert_eq!(schedule.learning_rate(5), 0.5);
        assert_eq!(schedule.learning_rate(10), 1.0);
    }

    #[test]
    fn falls_to_the_minimum_and_stays_there() {
        assert!((schedule(ScheduleShape::Linear).learning_rate(60) - 0.55).abs() < 1e-12);
        assert!((schedule(ScheduleShape::Cosine).learning_rate(60) - 0.55).abs() < 1e-12);
        for shape in [ScheduleShape::Linear, ScheduleShape::Cosine] {
            assert!((schedule(shape).learning_rate(110) - 0.1).abs() < 1e-12);
            assert!((schedule(shape).learning_rate(10_000) - 0.1).abs() < 1e-12);
        }
        assert_eq!(schedule(ScheduleShape::Constant).learning_rate(10_000), 1.0);
    }

    #[test]
    fn survives_a_run_that_is_all_warm_up() {
        let schedule = Schedule { warmup_steps: 10, total_steps: 10, ..schedule(ScheduleShape::Linear) };
        assert_eq!(schedule.learning_rate(10), 1.0);
    }
}
