//! The training loop.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;

use super::control::Control;
use super::save::{Best, ModelWriter};
use super::setup::Setup;
use super::steering::Wish;
use super::survey::{Survey, memory};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{Event, Recorder, StepReport};

/// Trains until the last step, a stop, or an error. The result lies in `run_dir/adapter` (or `run_dir/model` where every
/// weight is trained).
///
/// # Errors
/// An interruption after everything is saved; a divergence with the state before it saved; whatever fails otherwise.
pub async fn run(
    setup: Setup,
    run_dir: &Path,
    control: &Control,
    recorder: &mut Recorder,
) -> Result<PathBuf> {
    let survey = Survey::new(setup.trainer.step);
    let start = Instant::now();
    let mut run = Run {
        setup,
        run_dir,
        control,
        recorder,
        start,
        survey,
        submitted: VecDeque::new(),
        eval_ms: 0.0,
        checkpoint_ms: 0.0,
        step_ms: 0.0,
    };
    let result = run.train().await;
    if let Err(error) = &result {
        let (step, message) = (run.setup.trainer.step, error.to_string());
        let hint = error.hint_text().map(str::to_owned);
        run.recorder.record(&match error.kind() {
            ErrorKind::Interrupted => Event::Notice { message },
            _ => Event::Failed { step, message, hint },
        });
    }
    result
}

/// A run that is going on.
pub(super) struct Run<'a> {
    pub setup: Setup,
    pub run_dir: &'a Path,
    pub control: &'a Control,
    pub recorder: &'a mut Recorder,
    start: Instant,
    survey: Survey,
    /// Where the data stands after each of the steps that were submitted and not told.
    submitted: VecDeque<Position>,
    /// Evaluation and sampling since the last reported step.
    pub eval_ms: f64,
    /// Saving since the last reported step.
    checkpoint_ms: f64,
    /// Of the last step that is done.
    step_ms: f64,
}

/// What a step leaves of the data.
struct Position {
    epoch: f64,
    /// Tokens of the step.
    tokens: usize,
    /// The loader's state.
    loader: Value,
}

impl Run<'_> {
    async fn train(&mut self) -> Result<PathBuf> {
        let total = self.setup.trainer.schedule.total_steps;
        self.announce();
        self.samples().await?;
        let (mut stop, mut wish) = (false, Wish::GoOn);
        while self.setup.trainer.step < total && !stop {
            self.step().await?;
            let step = self.setup.trainer.step;
            let due = |every: usize| every > 0 && step.is_multiple_of(every);
            if due(self.setup.config.train.eval_steps) || step == total {
                stop = self.evaluate().await?;
            }
            if step < total {
                wish = self.obey().await?;
            }
            let improved = self.setup.progress.best.as_ref().is_some_and(|best| best.step == step);
            let interrupted = self.control.stopping() && step < total;
            stop |= wish == Wish::StopKeepBest;
            if due(self.setup.config.train.save_steps) || improved || interrupted || step == total || stop {
                self.save().await?;
            }
            if interrupted {
                let message = format!("stopped after step {step} of {total}; everything is saved");
                return Err(Error::new(ErrorKind::Interrupted, message).hint("continue with --resume"));
            }
        }
        self.samples().await?;
        let path = self.finish(wish == Wish::StopKeepBest).await?;
        let (steps, seconds) = (self.setup.trainer.step, self.start.elapsed().as_secs_f64());
        self.recorder.record(&Event::Finished { steps, seconds, path: path.clone() });
        Ok(path)
    }

    fn announce(&mut self) {
        let setup = &mut self.setup;
        let total_steps = setup.trainer.schedule.total_steps;
        let started = Event::Started {
            run: self.run_dir.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            model: setup.model.name.clone(),
            device: setup.trainer.executor.device_name().to_owned(),
            total_steps,
            first_step: setup.trainer.step,
            total_epochs: total_steps as f64 / setup.loader.windows_per_epoch().max(1) as f64,
            rows: setup.rows,
            validation_rows: setup.validation_rows,
            trained_parameters: setup.trained_parameters,
            total_parameters: setup.model.parameters(),
        };
        self.recorder.record(&started);
        for message in std::mem::take(&mut setup.notices) {
            self.recorder.record(&Event::Notice { message });
        }
        for event in std::mem::take(&mut setup.fallbacks) {
            self.recorder.record(&event);
        }
        if setup.trainer.learning_rate_scale != 1.0 {
            self.tell_learning_rate();
        }
    }

    /// Submits one window, and tells what is known then.
    async fn step(&mut self) -> Result<()> {
        let waiting = Instant::now();
        let window = match self.setup.loader.next_window().await {
            Ok(window) => window,
            Err(error) => {
                self.settle().await?;
                return self.saved_before(error).await;
            }
        };
        for message in &window.notices {
            self.recorder.record(&Event::Notice { message: message.clone() });
        }
        let waited = waiting.elapsed().as_secs_f64() * 1e3;
        let looking = self.survey.is_due(self.setup.trainer.step);
        if looking {
            self.settle().await?;
            self.survey.begin(&self.setup.trainer, self.setup.trained_parameters).await?;
        }
        let loader = serde_json::to_value(&window.state_after)
            .map_err(|error| Error::internal(format!("the loader's state cannot be written: {error}")))?;
        let submitted = self.setup.trainer.submit(&window, waited).await;
        self.tell_trainer_events();
        if let Err(error) = submitted {
            self.settle().await?;
            return Err(error);
        }
        self.submitted.push_back(Position { epoch: window.epoch, tokens: window.tokens, loader });
        if looking || self.setup.trainer.is_due() {
            self.settle().await?;
        }
        if looking {
            self.look().await?;
        }
        Ok(())
    }

    /// Waits for the steps that were submitted, and tells them. If one is not finite, the state before it is saved, unless
    /// later steps have changed it, and the error returned.
    pub(super) async fn settle(&mut self) -> Result<()> {
        let collected = self.setup.trainer.collect().await;
        let reports = self.setup.trainer.take_reports();
        self.tell_steps(reports).await?;
        self.tell_trainer_events();
        match collected {
            Err(error) if error.kind() == ErrorKind::Diverged => self.saved_before(error).await,
            other => other,
        }
    }

    /// Tells steps that ended one after the other, the last one now.
    async fn tell_steps(&mut self, reports: Vec<StepReport>) -> Result<()> {
        if reports.is_empty() {
            return Ok(());
        }
        let tensors = self.setup.trainer.executor.tensor_cache().await?;
        let (now, count) = (self.start.elapsed().as_secs_f64(), reports.len());
        for (index, mut report) in reports.into_iter().enumerate() {
            let progress = &mut self.setup.progress;
            if let Some(Position { epoch, tokens, loader }) = self.submitted.pop_front() {
                (progress.epoch, progress.loader) = (epoch, loader);
                progress.tokens_seen += tokens as u64;
            }
            self.step_ms = report.step_ms;
            if report.step.is_multiple_of(self.setup.config.log.logging_steps) {
                let later = (count - 1 - index) as f64 * report.step_ms / 1e3;
                report.elapsed_seconds = (now - later).max(0.0);
                (report.tensor_hits, report.tensor_misses) = (tensors.hits, tensors.misses);
                self.complete(&mut report);
                self.setup.progress.remember_step(&report);
                self.recorder.record(&Event::Step(report));
            }
        }
        Ok(())
    }

    /// Saves the state that the failed step left as it was, if no later step has changed it.
    async fn saved_before(&mut self, error: Error) -> Result<()> {
        if self.setup.trainer.step > 0 && self.setup.trainer.ahead == 0 {
            self.write_checkpoint().await?;
        }
        Err(error)
    }

    /// Adds what the trainer does not know.
    fn complete(&mut self, report: &mut StepReport) {
        let plans = self.setup.trainer.executor.plan_counts();
        (report.plan_hits, report.plan_misses) = (plans.hits, plans.misses);
        report.eval_ms = std::mem::take(&mut self.eval_ms);
        report.checkpoint_ms = std::mem::take(&mut self.checkpoint_ms);
        report.tokens_seen = self.setup.progress.tokens_seen;
        let part = report.epoch.fract();
        report.rows_seen = (if part > 0.0 { part } else { 1.0 } * self.setup.rows as f64).round() as usize;
    }

    /// Looks closer at the step that was settled last.
    async fn look(&mut self) -> Result<()> {
        let setup = &self.setup;
        let counters = setup.trainer.executor.counters().await?;
        let limit = setup.config.model.memory_budget;
        self.recorder.record(&memory(setup.trainer.step, &setup.planned, counters, limit));
        for event in self.survey.end(&setup.trainer, self.step_ms).await? {
            self.recorder.record(&event);
        }
        Ok(())
    }

    fn tell_trainer_events(&mut self) {
        self.setup.trainer.take_events().iter().for_each(|event| self.recorder.record(event));
    }

    /// Evaluates; returns whether to stop early.
    pub(super) async fn evaluate(&mut self) -> Result<bool> {
        self.settle().await?;
        if self.setup.validation.is_empty() {
            return Ok(false);
        }
        let mut report =
            self.setup.trainer.evaluate(&self.setup.validation, self.setup.progress.epoch).await?;
        self.tell_trainer_events();
        self.eval_ms += report.eval_ms;
        let progress = &mut self.setup.progress;
        report.best = progress.best.as_ref().is_none_or(|best| report.eval_loss < best.loss);
        if report.best {
            progress.best = Some(Best { loss: report.eval_loss, step: report.step });
            progress.evaluations_without_improvement = 0;
        } else {
            progress.evaluations_without_improvement += 1;
        }
        let stale = progress.evaluations_without_improvement;
        progress.remember_evaluation(&report);
        self.recorder.record(&Event::Evaluation(report));
        let patience = self.setup.config.train.early_stopping_patience;
        let stop = patience.is_some_and(|patience| stale >= patience);
        if stop {
            self.recorder
                .record(&Event::Notice { message: format!("no better evaluation in the last {stale}") });
        }
        Ok(stop)
    }

    /// Saves once it is known that all steps were finite.
    pub(super) async fn save(&mut self) -> Result<()> {
        self.settle().await?;
        self.write_checkpoint().await
    }

    async fn write_checkpoint(&mut self) -> Result<()> {
        let start = Instant::now();
        let setup = &self.setup;
        let writer = ModelWriter { model: &setup.model, spec: setup.adapter.as_ref() };
        let limit = setup.config.train.save_total_limit;
        let path = setup.progress.save(&setup.trainer, &writer, self.run_dir, limit).await?;
        self.checkpoint_ms += start.elapsed().as_secs_f64() * 1e3;
        self.recorder.record(&Event::Saved { step: self.setup.trainer.step, path });
        Ok(())
    }

    /// Writes the result: the trained values as they are, or those of the best checkpoint.
    async fn finish(&self, keep_best: bool) -> Result<PathBuf> {
        let setup = &self.setup;
        let writer = ModelWriter { model: &setup.model, spec: setup.adapter.as_ref() };
        let path = self.run_dir.join(if setup.adapter.is_some() { "adapter" } else { "model" });
        let best = if keep_best { setup.progress.best_values(self.run_dir)? } else { None };
        let values = match best {
            Some(values) => values,
            None => setup.trainer.trained_values().await?,
        };
        writer.write_final(&path, &setup.trainer.builder.trained, &values)?;
        Ok(path)
    }
}
