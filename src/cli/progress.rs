//! Progress for people: a bar on a terminal, plain lines elsewhere.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::printer::Printer;
use crate::metrics::{EvaluationReport, Event, Sink, StepReport};
use crate::model::hub::DownloadProgress;

/// Shows a run's events on standard error.
pub struct Progress {
    /// Hidden where there is no terminal.
    bar: ProgressBar,
    printer: Printer,
    total: usize,
}

impl Progress {
    pub fn new(printer: &Printer) -> Self {
        let bar = if printer.terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let template = "{bar:30} {pos}/{len}  {msg}  eta {eta}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, printer: printer.clone(), total: 0 }
    }

    /// Lines even on a terminal.
    pub fn plain(printer: &Printer) -> Self {
        Self { bar: ProgressBar::hidden(), printer: printer.clone(), total: 0 }
    }

    fn say(&self, text: &str) {
        self.bar.suspend(|| self.printer.note(text));
    }

    fn step(&self, report: &StepReport) {
        let StepReport { step, loss, tokens_per_second, step_ms, learning_rate, grad_norm, .. } = report;
        let rates = format!("loss {loss:.4}  {tokens_per_second:.0} tok/s  {step_ms:.0} ms");
        if self.bar.is_hidden() {
            let total = self.total;
            self.say(&format!(
                "step {step}/{total}  {rates}  lr {learning_rate:.2e}  grad_norm {grad_norm:.3}"
            ));
        } else {
            self.bar.set_message(rates);
            self.bar.set_position(*step as u64);
        }
    }

    fn evaluation(&self, report: &EvaluationReport) {
        let EvaluationReport { step, eval_loss, perplexity, best, .. } = report;
        let mark = if *best { "  best so far" } else { "" };
        self.say(&format!(
            "evaluation at step {step}: loss {eval_loss:.4}  perplexity {perplexity:.2}{mark}"
        ));
    }
}

impl Sink for Progress {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Started { .. } => self.started(event),
            Event::Planned { rows, sequence, operations, batches, arena_bytes, .. } => {
                let memory = bytes(*arena_bytes);
                self.say(&format!(
                    "plan for {rows} x {sequence}: {operations} operations in {batches} batches, {memory}"
                ));
            }
            Event::Step(report) => self.step(report),
            Event::Evaluation(report) => self.evaluation(report),
            Event::Sample(sample) => self.say(&format!("> {}\n  {}", sample.prompt, sample.text.trim())),
            Event::Saved { path, .. } => self.say(&format!("saved {}", path.display())),
            Event::Notice { message } => self.say(&format!("note: {message}")),
            Event::Fallback { operation, reason } => {
                self.say(&format!("note: {operation} runs as plain operations: {reason}"));
            }
            Event::Finished { steps, seconds, path } => {
                self.bar.finish_and_clear();
                self.say(&format!("{steps} steps in {seconds:.1} s; the result is in {}", path.display()));
            }
            Event::LearningRate { learning_rate, .. } => {
                self.say(&format!("note: the learning rate is {learning_rate:.2e} from now on"));
            }
            Event::Paused { step } => self.say(&format!("paused after step {step}")),
            Event::Resumed { .. } => self.say("resumed"),
            // The error that ends the run says the same.
            Event::Failed { .. } | Event::NotFinite { .. } => {}
            Event::Profile { .. } | Event::Memory { .. } | Event::Layers { .. } => {}
        }
    }
}

impl Progress {
    fn started(&mut self, event: &Event) {
        let Event::Started {
            model,
            device,
            total_steps,
            first_step,
            rows,
            validation_rows,
            trained_parameters,
            total_parameters,
            ..
        } = event
        else {
            return;
        };
        self.total = *total_steps;
        self.bar.set_length(*total_steps as u64);
        self.bar.set_position(*first_step as u64);
        self.bar.reset_eta();
        let share = 100.0 * *trained_parameters as f64 / (*total_parameters).max(1) as f64;
        let rows = if *rows == 0 { "streamed".to_owned() } else { rows.to_string() };
        self.say(&format!(
            "{model} on {device}: {rows} rows ({validation_rows} for validation), {total_steps} steps, \
             {trained_parameters} of {total_parameters} parameters trained ({share:.2}%)"
        ));
    }
}

/// A number of bytes for people.
pub fn bytes(count: usize) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A spinner that counts, shown on a terminal if the work takes long enough to wonder.
pub fn counter(
    printer: &Printer,
    doing: &str,
    what: &str,
) -> (ProgressBar, impl FnMut(usize) + Send + use<>) {
    let bar = if printer.terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {pos} {msg}") {
        bar.set_style(style);
    }
    bar.set_prefix(doing.to_owned());
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(100));
    let counted = bar.clone();
    (bar, move |count| counted.set_position(count as u64))
}

/// Shows downloads from the hub: a bar on a terminal, else a line for each file.
pub fn downloads(printer: &Printer) -> DownloadProgress {
    let bar = if printer.terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    if let Ok(style) =
        ProgressStyle::with_template("{prefix} {bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  eta {eta}")
    {
        bar.set_style(style);
    }
    let (printer, current) = (printer.clone(), Mutex::new(String::new()));
    Arc::new(move |file, done, total| {
        let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
        if *current != file {
            file.clone_into(&mut current);
            bar.set_prefix(file.to_owned());
            if bar.is_hidden() {
                printer.note(&format!("downloading {file} ({})", bytes(usize::try_from(total).unwrap_or(0))));
            }
        }
        bar.set_length(total);
        bar.set_position(done);
        if done >= total && total > 0 {
            bar.finish_and_clear();
        }
    })
}
