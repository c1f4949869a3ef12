//! `lazytune train`

use std::path::{Path, PathBuf};

use super::arguments::TrainArguments;
use super::dashboard::{self, Live};
use super::printer::Printer;
use super::progress::{Progress, counter, downloads};
use super::{detach, sinks};
use crate::checkpoint;
use crate::config::{self, RunConfig};
use crate::error::{Error, Result, ResultExt};
use crate::train::model::OpenModel;
use crate::train::setup::setup;
use crate::train::{self, Control, RunLock};

pub async fn run(arguments: &TrainArguments, printer: &Printer) -> Result<()> {
    let config = load(arguments, printer)?;
    let run_dir = config.train.output_dir.clone();
    RunLock::require_free(&run_dir)?;
    let resume = resume(arguments, &run_dir)?;
    if resume.is_none() {
        refuse_to_overwrite(&run_dir)?;
    }
    if arguments.detach {
        return detach::start(&run_dir, printer);
    }
    if arguments.detached {
        detach::leave_terminal();
    }
    let (counting, mut counted) = counter(printer, "tokenizing", "rows");
    let model = OpenModel::open(&config, Some(downloads(printer)))?;
    let mut setup = setup(config, model, resume.as_ref(), &mut counted).await?;
    counting.finish_and_clear();
    std::fs::create_dir_all(&run_dir).context(|| format!("creating {}", run_dir.display()))?;
    let lock = RunLock::take(&run_dir)?;
    let resolved = run_dir.join("config.toml");
    std::fs::write(&resolved, setup.config.to_toml()?)
        .context(|| format!("writing {}", resolved.display()))?;
    let control = Control::default();
    let mut recorder = sinks::open(&mut setup, &run_dir, &control)?;
    let stopping = control.clone();
    dashboard::on_signal(move || stopping.stop())?;
    let live = if dashboard::wanted(arguments.plain, printer) {
        Some(Live::open(control.clone(), &mut recorder)?)
    } else {
        recorder.add(Box::new(if arguments.plain {
            Progress::plain(printer)
        } else {
            Progress::new(printer)
        }));
        None
    };
    let result = train::run(setup, &run_dir, &control, &mut recorder).await;
    drop(recorder);
    drop(lock);
    let closed = live.map_or(Ok(()), Live::wait);
    printer.data(&result?.display().to_string());
    closed
}

fn load(arguments: &TrainArguments, printer: &Printer) -> Result<RunConfig> {
    let mut overrides = arguments.config.overrides.clone();
    if let Some(steps) = arguments.max_steps {
        overrides.push(format!("train.max_steps={steps}"));
    }
    let mut config = config::load_with_color(&arguments.config.path, &overrides, printer.colored())?;
    if let Some(run_dir) = &arguments.run_dir {
        config.train.output_dir =
            std::path::absolute(run_dir).context(|| format!("resolving {}", run_dir.display()))?;
    }
    Ok(config)
}

/// The checkpoint to continue from.
fn resume(arguments: &TrainArguments, run_dir: &Path) -> Result<Option<PathBuf>> {
    match &arguments.resume {
        None => Ok(None),
        Some(Some(folder)) if folder.is_dir() => Ok(Some(folder.clone())),
        Some(Some(folder)) => Err(Error::user(format!("there is no checkpoint {}", folder.display()))
            .hint("give a checkpoint-N folder, or --resume alone for the latest one")),
        Some(None) => {
            let latest = checkpoint::latest(run_dir)?;
            let missing = || Error::user(format!("there is no checkpoint in {}", run_dir.display()));
            Ok(Some(latest.ok_or_else(|| missing().hint("start the run without --resume"))?))
        }
    }
}

/// A run never silently replaces another.
fn refuse_to_overwrite(run_dir: &Path) -> Result<()> {
    let holds_a_run = !checkpoint::list(run_dir)?.is_empty()
        || ["adapter", "model", "metrics.jsonl"].iter().any(|name| run_dir.join(name).exists());
    if holds_a_run {
        let message = format!("{} holds a run already", run_dir.display());
        return Err(
            Error::user(message).hint("continue it with --resume, or choose another folder with --run-dir")
        );
    }
    Ok(())
}
