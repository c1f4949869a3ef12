//! Where the time of a step goes.

use std::collections::VecDeque;

use crate::metrics::{OperationKindTime, StepReport};

/// Parts of a step and of what happens between steps, in order.
pub const STAGES: [&str; 7] =
    ["data wait", "forward", "backward", "optimizer", "step", "evaluation", "checkpoint"];
/// Steps that the split is averaged over.
const WINDOW: usize = 50;
/// Kinds that are kept.
const KINDS: usize = 256;

/// Milliseconds of the last steps by stage, and of one step by kind of operation.
#[derive(Debug, Clone, Default)]
pub struct Split {
    recent: VecDeque<[f64; STAGES.len()]>,
    /// Longest first.
    pub kinds: Vec<OperationKindTime>,
    /// The step that `kinds` were measured in.
    pub measured_step: usize,
}

impl Split {
    pub fn step(&mut self, report: &StepReport) {
        let known = report.forward_ms + report.backward_ms + report.optimizer_ms;
        let parts = [
            report.data_wait_ms,
            report.forward_ms,
            report.backward_ms,
            report.optimizer_ms,
            report.step_ms - known,
            report.eval_ms,
            report.checkpoint_ms,
        ];
        if self.recent.len() == WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back(parts.map(|ms| if ms.is_finite() { ms.max(0.0) } else { 0.0 }));
    }

    /// Takes the times by kind of operation of one step.
    pub fn profile(&mut self, step: usize, kinds: &[OperationKindTime]) {
        self.measured_step = step;
        let finite = |kind: &&OperationKindTime| kind.ms.is_finite() && kind.ms >= 0.0;
        self.kinds = kinds.iter().take(KINDS).filter(finite).cloned().collect();
        self.kinds.sort_by(|left, right| right.ms.total_cmp(&left.ms));
    }

    /// Mean milliseconds of each stage that takes any, by its index in `STAGES`.
    pub fn stages(&self) -> Vec<(usize, f64)> {
        let count = self.recent.len().max(1) as f64;
        let mean = |stage: usize| self.recent.iter().map(|parts| parts[stage]).sum::<f64>() / count;
        (0..STAGES.len()).map(|stage| (stage, mean(stage))).filter(|&(_, ms)| ms > 0.0).collect()
    }
}

/// Tokens of the last steps and the seconds they took.
#[derive(Debug, Clone, Default)]
pub struct Throughput {
    recent: VecDeque<(f64, f64, f64)>,
}

impl Throughput {
    pub fn step(&mut self, report: &StepReport) {
        let seconds = report.step_ms / 1e3;
        if !seconds.is_finite() || seconds <= 0.0 {
            return;
        }
        if self.recent.len() == 2 * WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back((report.tokens as f64, report.supervised_tokens as f64, seconds));
    }

    /// All and supervised tokens per second over the last `steps`.
    pub fn over(&self, steps: usize) -> Option<(f64, f64)> {
        let last = self.recent.iter().rev().take(steps);
        let sum = last.fold((0.0, 0.0, 0.0), |sum, part| (sum.0 + part.0, sum.1 + part.1, sum.2 + part.2));
        (sum.2 > 0.0).then(|| (sum.0 / sum.2, sum.1 / sum.2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_without_stages_is_one_part() {
        let mut split = Split::default();
        split.step(&StepReport { step_ms: 10.0, data_wait_ms: 2.0, ..StepReport::default() });
        assert_eq!(split.stages(), [(0, 2.0), (4, 10.0)]);
        let staged = StepReport { step_ms: 10.0, forward_ms: 4.0, backward_ms: 6.0, ..StepReport::default() };
        let mut split = Split::default();
        split.step(&staged);
        assert_eq!(split.stages(), [(1, 4.0), (2, 6.0)]);
    }

    #[test]
    fn throughput_weighs_steps_by_their_time() {
        let mut throughput = Throughput::default();
        assert_eq!(throughput.over(10), None);
        for (tokens, step_ms) in [(100, 1000.0), (100, 3000.0), (5, f64::NAN)] {
            throughput.step(&StepReport { tokens, step_ms, supervised_tokens: 50, ..StepReport::default() });
        }
        assert_eq!(throughput.over(10), Some((50.0, 25.0)));
    }
}
