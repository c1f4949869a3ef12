//! Steps between their submission and the report of what came out.
//!
//! ```text
//! submit(window) submit(window) ... collect() -> take_reports()
//! ```
//!
//! A GPU is given step after step, and keeps losses and norms in its own memory; the host waits for it once in
//! `read_steps` steps. What is cheap to read, as the CPU's results are, is read after every step.

use std::time::Instant;

use super::step::StepKind;
use super::trainer::{Trainer, first};
use crate::data::{RowSource, Window};
use crate::error::{Error, ErrorKind, Result};
use crate::executor::HostTensor;
use crate::metrics::{Event, StepReport};

/// Rows that a divergence names.
const SHOWN_ROWS: usize = 8;

/// Steps that were submitted, the oldest first.
#[derive(Default)]
pub(super) struct Pending {
    steps: Vec<Submitted>,
    /// When the first of them began.
    since: Option<Instant>,
}

/// A step whose results are not known.
struct Submitted {
    /// All but what the results say, and times.
    report: StepReport,
    micro_batches: usize,
    /// The first rows of its window.
    rows: Vec<RowSource>,
    more_rows: usize,
}

impl Submitted {
    /// The loss, summed over the window, and the norm of its gradients.
    fn outcome(&self, results: &mut impl Iterator<Item = Vec<HostTensor>>) -> Result<(f64, f64)> {
        let (mut loss, mut grad_norm) = (0.0, 0.0);
        for index in 0..self.micro_batches {
            let lost = || Error::internal(format!("results of step {} were lost", self.report.step));
            let outputs = results.next().ok_or_else(lost)?;
            loss += first(&outputs, 0)?;
            if StepKind::of(index, self.micro_batches).updates() {
                grad_norm = first(&outputs, 1)?;
            }
        }
        Ok((loss, grad_norm))
    }
}

impl Trainer {
    /// One optimizer step on a window, waited for, and with it those that were submitted before. `data_wait_ms` is passed
    /// through to the report.
    ///
    /// # Errors
    /// As for [`Self::submit`] and [`Self::collect`].
    pub async fn step(&mut self, window: &Window, data_wait_ms: f64) -> Result<StepReport> {
        self.submit(window, data_wait_ms).await?;
        self.collect().await?;
        self.reports.pop().ok_or_else(|| Error::internal("a step gave no report"))
    }

    /// Begins one optimizer step on a window. Where results stay on the device, it returns while the step runs, so that
    /// the next one is prepared meanwhile.
    ///
    /// # Errors
    /// A device error if the step cannot be prepared; what fails while it runs is told by [`Self::collect`].
    pub async fn submit(&mut self, window: &Window, data_wait_ms: f64) -> Result<()> {
        if self.pending.since.is_none() {
            self.pending.since = Some(Instant::now());
            self.clock.take_stages();
        }
        let scale = 1.0 / window.supervised_tokens.max(1) as f64;
        let micro_batches = window.batches.len();
        if micro_batches > 1 && !self.accumulators {
            self.prepare_accumulators().await?;
        }
        let learning_rate = self.learning_rate();
        for (index, batch) in window.batches.iter().enumerate() {
            let kind = StepKind::of(index, micro_batches);
            let (plan, mut inputs) = self.prepared(kind, batch, scale).await?;
            inputs.insert("dropout_seed".into(), self.dropout_seed(index)?);
            inputs.insert("learning_rate".into(), self.number(learning_rate)?);
            inputs.insert("step".into(), self.number((self.step + 1) as f64)?);
            self.executor.submit(plan, inputs).await?;
        }
        self.step += 1;
        let report = StepReport {
            step: self.step,
            epoch: window.epoch,
            learning_rate,
            tokens: window.tokens,
            supervised_tokens: window.supervised_tokens,
            data_wait_ms,
            ..StepReport::default()
        };
        let rows = window.batches.iter().flat_map(|batch| &batch.sources);
        let more_rows = rows.clone().count().saturating_sub(SHOWN_ROWS);
        let rows = rows.take(SHOWN_ROWS).cloned().collect();
        self.pending.steps.push(Submitted { report, micro_batches, rows, more_rows });
        Ok(())
    }

    /// Whether it is time to collect: after every step, or after `read_steps` where results stay on the device.
    pub fn is_due(&self) -> bool {
        let together = if self.executor.defers() { self.read_steps } else { 1 };
        self.pending.steps.len() >= together
    }

    /// Waits for all steps that were submitted; [`Self::take_reports`] gives their reports. Steps that were waited for
    /// together share the time that they took, evenly.
    ///
    /// # Errors
    /// A divergence error that names the window's rows if the loss or the gradients' norm of a step is not finite; there
    /// are reports of the steps before it. Where it is the norm of the last step that was submitted, the trained values
    /// are those of the step before; later ones go on from there, see [`Self::ahead`]. A device error if a kernel fails.
    pub async fn collect(&mut self) -> Result<()> {
        let Pending { steps, since: Some(since) } = std::mem::take(&mut self.pending) else { return Ok(()) };
        let count = steps.len();
        self.step -= count;
        let mut results = self.executor.collect().await?.into_iter();
        let seconds = since.elapsed().as_secs_f64() / count.max(1) as f64;
        let stages = self.clock.take_stages();
        // Of a device that works on its own, the clock saw only how long it took to tell it what to do.
        let stages = if self.executor.defers() { Default::default() } else { stages };
        for (index, submitted) in steps.into_iter().enumerate() {
            let (loss, grad_norm) = submitted.outcome(&mut results)?;
            if !loss.is_finite() || !grad_norm.is_finite() {
                self.ahead = count - 1 - index;
                return Err(self.diverged(loss, grad_norm, &submitted));
            }
            self.step += 1;
            self.reports.push(StepReport {
                loss,
                grad_norm,
                tokens_per_second: submitted.report.tokens as f64 / seconds.max(1e-9),
                step_ms: seconds * 1e3,
                forward_ms: stages.forward,
                backward_ms: stages.backward,
                optimizer_ms: stages.optimizer,
                ..submitted.report
            });
        }
        Ok(())
    }

    /// Reports of the steps that were collected since the last call, the oldest first.
    pub fn take_reports(&mut self) -> Vec<StepReport> {
        std::mem::take(&mut self.reports)
    }

    /// Tells what is not finite, and on which rows.
    fn diverged(&self, loss: f64, grad_norm: f64, submitted: &Submitted) -> Error {
        let (step, more) = (submitted.report.step, submitted.more_rows);
        let rows: Vec<String> = submitted.rows.iter().map(ToString::to_string).collect();
        let told = if more > 0 { format!(" and {more} more") } else { String::new() };
        let message =
            format!("loss {loss} and gradient norm {grad_norm} at step {step}, on {}{told}", rows.join(", "));
        self.events().push(Event::NotFinite { step, loss, grad_norm, rows });
        let mut hint =
            "lower optimizer.learning_rate, set optimizer.max_grad_norm, or look at these rows".to_owned();
        if self.ahead > 0 {
            let ahead = self.ahead;
            hint.push_str(&format!(
                "; {ahead} later steps ran before it was noticed, so the state before it is not saved: log.read_steps = 1 \
                 notices at once"
            ));
        }
        Error::new(ErrorKind::Diverged, message).hint(hint)
    }
}
