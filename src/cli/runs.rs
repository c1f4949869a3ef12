//! `lazytune runs`: which runs there are, and what became of them.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;

use super::arguments::RunsArguments;
use super::printer::Printer;
use crate::error::{Error, Result, ResultExt};
use crate::metrics::{Event, EventParser};
use crate::train::RunLock;

const METRICS: &str = "metrics.jsonl";
/// Read at once.
const CHUNK: usize = 1 << 18;

/// What is said of a run.
#[derive(Debug, Default, Serialize)]
pub struct RunSummary {
    pub name: String,
    pub path: PathBuf,
    pub model: Option<String>,
    /// `running`, `finished`, `failed` or `interrupted`.
    pub state: &'static str,
    pub steps: usize,
    pub total_steps: Option<usize>,
    pub loss: Option<f64>,
    pub best_step: Option<usize>,
    pub best_loss: Option<f64>,
    pub tokens_per_second: Option<f64>,
    /// Since anything happened.
    pub age_seconds: u64,
    /// Why it failed.
    pub error: Option<String>,
}

pub fn run(arguments: &RunsArguments, printer: &Printer) -> Result<()> {
    let mut runs = list(&arguments.folder)?;
    runs.sort_by(|left, right| left.age_seconds.cmp(&right.age_seconds).then(left.name.cmp(&right.name)));
    if arguments.json {
        let text = serde_json::to_string_pretty(&runs);
        printer.data(&text.map_err(|error| Error::internal(error.to_string()))?);
    } else if runs.is_empty() {
        printer.note(&format!("there are no runs in {}", arguments.folder.display()));
    } else {
        table(&runs).iter().for_each(|line| printer.data(line));
    }
    Ok(())
}

/// The runs in a folder, or the one that the folder is.
fn list(folder: &Path) -> Result<Vec<RunSummary>> {
    if folder.join(METRICS).is_file() {
        return Ok(vec![RunSummary::read(folder)?]);
    }
    if !folder.is_dir() {
        return Err(Error::user(format!("there is no folder {}", folder.display()))
            .hint("name the folder that holds the runs' folders"));
    }
    let entries = std::fs::read_dir(folder).context(|| format!("reading {}", folder.display()))?;
    let folders = entries.flatten().map(|entry| entry.path());
    folders
        .filter(|run_dir| run_dir.join(METRICS).is_file())
        .map(|run_dir| RunSummary::read(&run_dir))
        .collect()
}

impl RunSummary {
    /// Reads a run's folder; lines that cannot be read are left out.
    ///
    /// # Errors
    /// A user error if it is not a run's folder, a data error if its metrics cannot be read.
    pub fn read(run_dir: &Path) -> Result<Self> {
        let path = run_dir.join(METRICS);
        let doing = || format!("reading {}", path.display());
        let name = std::path::absolute(run_dir).unwrap_or_else(|_| run_dir.to_owned());
        let mut summary = Self {
            name: name.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            path: run_dir.to_owned(),
            state: "interrupted",
            ..Self::default()
        };
        let mut file = File::open(&path).context(doing)?;
        let changed = file.metadata().and_then(|metadata| metadata.modified()).context(doing)?;
        summary.age_seconds = SystemTime::now().duration_since(changed).unwrap_or_default().as_secs();
        let (mut parser, mut chunk) = (EventParser::default(), vec![0; CHUNK]);
        loop {
            let count = file.read(&mut chunk).context(doing)?;
            if count == 0 {
                break;
            }
            parser.feed(&chunk[..count], &mut |event| summary.apply(event));
        }
        if RunLock::is_taken(run_dir) {
            summary.state = "running";
        }
        Ok(summary)
    }

    fn apply(&mut self, event: Event) {
        self.steps = event.step().map_or(self.steps, |step| step.max(self.steps));
        match event {
            Event::Started { model, total_steps, first_step, .. } => {
                (self.model, self.total_steps) = (Some(model), Some(total_steps));
                (self.state, self.error, self.steps) = ("interrupted", None, first_step);
            }
            Event::Step(report) => {
                (self.loss, self.tokens_per_second) = (Some(report.loss), Some(report.tokens_per_second));
            }
            Event::Evaluation(report) if report.best => {
                (self.best_step, self.best_loss) = (Some(report.step), Some(report.eval_loss));
            }
            Event::Finished { .. } => self.state = "finished",
            Event::Failed { message, step, .. } => {
                (self.state, self.error, self.steps) = ("failed", Some(message), step);
            }
            _ => {}
        }
    }
}

/// Aligned columns under their names.
pub fn table(runs: &[RunSummary]) -> Vec<String> {
    let head = ["run", "model", "state", "steps", "loss", "best", "tokens/s", "age"].map(str::to_owned);
    let rows: Vec<[String; 8]> = std::iter::once(head).chain(runs.iter().map(row)).collect();
    let widths: Vec<usize> =
        (0..8).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    let line = |row: &[String; 8]| {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

fn row(run: &RunSummary) -> [String; 8] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let best = run.best_loss.zip(run.best_step).map(|(loss, step)| format!("{loss:.4} at {step}"));
    [
        run.name.clone(),
        or_dash(run.model.clone()),
        run.state.to_owned(),
        run.total_steps.map_or(run.steps.to_string(), |total| format!("{}/{total}", run.steps)),
        or_dash(run.loss.map(|loss| format!("{loss:.4}"))),
        or_dash(best),
        or_dash(run.tokens_per_second.map(|rate| format!("{rate:.0}"))),
        age(run.age_seconds),
    ]
}

fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}
