//! Everything that is known of a run, from its events.

use std::path::PathBuf;
use std::time::Duration;

use super::facts::{Layers, Memory, Plans};
use super::histogram::Histogram;
use super::log::{Log, Weight};
use super::series::Series;
use super::smooth::{Average, Pace};
use super::stages::{Split, Throughput};
use crate::metrics::{EvaluationReport, Event, StepReport};

/// The curve is smoothed over this part of the run.
const SMOOTH_PART: usize = 100;

/// What does not change during a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct About {
    pub run: String,
    pub model: String,
    pub device: String,
    pub total_steps: usize,
    pub first_step: usize,
    pub total_epochs: f64,
    pub rows: usize,
    pub validation_rows: usize,
    pub trained_parameters: usize,
    pub total_parameters: usize,
}

/// Where a run is in its life.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Status {
    /// No event yet.
    #[default]
    Waiting,
    Running,
    Paused,
    Finished {
        seconds: f64,
        path: PathBuf,
    },
    Failed {
        message: String,
        hint: Option<String>,
    },
}

impl Status {
    /// Whether nothing more will come.
    pub fn ended(&self) -> bool {
        matches!(self, Self::Finished { .. } | Self::Failed { .. })
    }
}

/// A run as far as its events have told; memory is bounded however long it is.
#[derive(Debug, Clone)]
pub struct Run {
    pub about: About,
    pub status: Status,
    /// Optimizer steps done.
    pub step: usize,
    /// The latest step that was reported.
    pub last: Option<StepReport>,
    /// Nats.
    pub loss: Series,
    /// The moving average of the loss.
    pub smoothed: Series,
    average: Average,
    /// Validation losses, in nats.
    pub validation: Series,
    /// The latest evaluation.
    pub evaluation: Option<EvaluationReport>,
    /// Step and loss of the best evaluation.
    pub best: Option<(usize, f64)>,
    pub tokens_per_second: Series,
    pub supervised_per_second: Series,
    /// Rates over the last steps.
    pub throughput: Throughput,
    /// Milliseconds of each step.
    pub step_ms: Series,
    /// Times of all steps.
    pub latency: Histogram,
    /// What the time of a step goes into.
    pub split: Split,
    pub learning_rate: Series,
    /// Before clipping.
    pub grad_norm: Series,
    /// What the user multiplied the schedule with.
    pub learning_rate_scale: f64,
    pub memory: Memory,
    pub plans: Plans,
    pub layers: Layers,
    pub log: Log,
    /// Tokens that were trained on, padding excluded.
    pub tokens_seen: u64,
    /// For the time that is left.
    pub pace: Pace,
    /// When the last event happened.
    pub heard: Duration,
    /// Steps whose loss or gradients were not numbers.
    pub not_finite: u64,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            about: About::default(),
            status: Status::default(),
            step: 0,
            last: None,
            loss: Series::default(),
            smoothed: Series::default(),
            average: Average::over(1.0),
            validation: Series::default(),
            evaluation: None,
            best: None,
            tokens_per_second: Series::default(),
            supervised_per_second: Series::default(),
            throughput: Throughput::default(),
            step_ms: Series::default(),
            latency: Histogram::default(),
            split: Split::default(),
            learning_rate: Series::default(),
            grad_norm: Series::default(),
            learning_rate_scale: 1.0,
            memory: Memory::default(),
            plans: Plans::default(),
            layers: Layers::default(),
            log: Log::default(),
            tokens_seen: 0,
            pace: Pace::default(),
            heard: Duration::ZERO,
            not_finite: 0,
        }
    }
}

impl Run {
    /// Takes in what happened at `now`, on the clock that all events of the run share.
    pub fn apply(&mut self, event: &Event, now: Duration) {
        self.heard = now;
        match event {
            Event::Started { .. } => self.started(event),
            Event::Planned { .. } => self.plans.planned(event),
            Event::Step(report) => self.stepped(report, now),
            Event::Evaluation(report) => self.evaluated(report),
            Event::Sample(sample) => self.log.sample(sample),
            Event::Profile { step, kinds } => self.split.profile(*step, kinds),
            Event::Memory { step, kinds, process_bytes, limit_bytes } => {
                self.memory.measured(*step, kinds, *process_bytes, *limit_bytes);
            }
            Event::Layers { step, layers } => self.layers.looked(*step, layers),
            Event::LearningRate { scale, .. } => self.learning_rate_scale = *scale,
            Event::NotFinite { .. } => self.not_finite += 1,
            Event::Paused { .. } => {
                self.status = Status::Paused;
                self.pace.interrupt();
            }
            Event::Resumed { .. } => self.status = Status::Running,
            Event::Finished { steps, seconds, path } => {
                self.step = *steps;
                self.status = Status::Finished { seconds: *seconds, path: path.clone() };
            }
            Event::Failed { message, hint, .. } => {
                self.status = Status::Failed { message: message.clone(), hint: hint.clone() };
            }
            Event::Saved { .. } | Event::Notice { .. } | Event::Fallback { .. } => {}
        }
        if let Some((weight, text)) = super::describe::entry(event) {
            self.log.add(now, event.step().unwrap_or(self.step), weight, &text);
        }
    }

    /// A run that is resumed keeps its curves up to the first step.
    fn started(&mut self, event: &Event) {
        let Event::Started {
            run,
            model,
            device,
            total_steps,
            first_step,
            total_epochs,
            rows,
            validation_rows,
            trained_parameters,
            total_parameters,
        } = event
        else {
            return;
        };
        self.about = About {
            run: run.clone(),
            model: model.clone(),
            device: device.clone(),
            total_steps: *total_steps,
            first_step: *first_step,
            total_epochs: *total_epochs,
            rows: *rows,
            validation_rows: *validation_rows,
            trained_parameters: *trained_parameters,
            total_parameters: *total_parameters,
        };
        self.status = Status::Running;
        self.step = *first_step;
        self.pace.interrupt();
        self.average = Average::over((*total_steps / SMOOTH_PART).clamp(8, 100) as f64);
    }

    /// Takes a step into every series and counter.
    fn stepped(&mut self, report: &StepReport, now: Duration) {
        if self.status == Status::Waiting {
            // A metrics file may hold steps only.
            self.status = Status::Running;
            self.average = Average::over(30.0);
        }
        let x = report.step as f64;
        let before = self.last.as_ref().map_or(self.about.first_step, |last| last.step);
        let steps = report.step.saturating_sub(before).max(1) as u64;
        self.tokens_seen = match report.tokens_seen {
            0 => self.tokens_seen.saturating_add(steps.saturating_mul(report.tokens as u64)),
            counted => counted,
        };
        self.step = report.step;
        self.loss.push(x, report.loss);
        self.average.push(report.loss);
        self.smoothed.push(x, self.average.value().unwrap_or(f64::NAN));
        self.tokens_per_second.push(x, report.tokens_per_second);
        let supervised = report.supervised_tokens as f64 / (report.step_ms / 1e3);
        self.supervised_per_second.push(x, supervised);
        self.throughput.step(report);
        self.step_ms.push(x, report.step_ms);
        self.latency.push(report.step_ms);
        self.split.step(report);
        self.learning_rate.push(x, report.learning_rate);
        self.grad_norm.push(x, report.grad_norm);
        self.plans.step(report);
        // Steps that were waited for together are told at the same moment.
        let told = Duration::try_from_secs_f64(report.elapsed_seconds).unwrap_or_default();
        self.pace.step(report.step, if told.is_zero() { now } else { told });
        self.last = Some(report.clone());
    }

    fn evaluated(&mut self, report: &EvaluationReport) {
        self.validation.push(report.step as f64, report.eval_loss);
        let better = self.best.is_none_or(|(_, loss)| report.eval_loss < loss);
        if report.eval_loss.is_finite() && (report.best || better) {
            self.best = Some((report.step, report.eval_loss));
        }
        self.evaluation = Some(report.clone());
    }

    /// Wall time until the last step, while the run goes on.
    pub fn eta(&self) -> Option<Duration> {
        let left = self.about.total_steps.checked_sub(self.step)?;
        if self.status == Status::Running { self.pace.remaining(left) } else { None }
    }

    /// The part of all steps that is done, from 0 to 1.
    pub fn progress(&self) -> f64 {
        let total = self.about.total_steps;
        if total == 0 { 0.0 } else { (self.step as f64 / total as f64).clamp(0.0, 1.0) }
    }

    /// First and last step that there is anything to draw for.
    pub fn extent(&self) -> (f64, f64) {
        let ends = [&self.loss, &self.validation, &self.step_ms].into_iter().filter_map(Series::extent);
        let join = |all: (f64, f64), one: (f64, f64)| (all.0.min(one.0), all.1.max(one.1));
        ends.reduce(join).unwrap_or((0.0, 1.0))
    }

    /// How the run ended, in words; none while it goes on.
    pub fn outcome(&self) -> Option<(Weight, String)> {
        match &self.status {
            Status::Finished { path, .. } => Some((Weight::Good, format!("result in {}", path.display()))),
            Status::Failed { message, .. } => Some((Weight::Bad, message.clone())),
            Status::Waiting | Status::Running | Status::Paused => None,
        }
    }
}

#[cfg(test)]
mod tests;
