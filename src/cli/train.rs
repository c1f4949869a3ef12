//! `lazytune train`

use std::path::{Path, PathBuf};

use super::arguments::TrainArguments;
use super::printer::Printer;
use super::progress::{Progress, counter, downloads};
use crate::checkpoint;
use crate::config::{self, RunConfig};
use crate::error::{Error, Result, ResultExt};
use crate::metrics::{JsonLines, Recorder};
use crate::train::model::OpenModel;
use crate::train::setup::setup;
use crate::train::{self, Control};

pub async fn run(arguments: &TrainArguments, printer: &Printer) -> Result<()> {
    let config = load(arguments, printer)?;
    let run_dir = config.train.output_dir.clone();
    let resume = resume(arguments, &run_dir)?;
    if resume.is_none() {
        refuse_to_overwrite(&run_dir)?;
    }
    let (counting, mut counted) = counter(printer, "tokenizing", "rows");
    let model = OpenModel::open(&config.model, config.train.seed, Some(downloads(printer)))?;
    let setup = setup(config, model, resume.as_ref(), &mut counted).await?;
    counting.finish_and_clear();
    std::fs::create_dir_all(&run_dir).context(|| format!("creating {}", run_dir.display()))?;
    let resolved = run_dir.join("config.toml");
    std::fs::write(&resolved, setup.config.to_toml()?)
        .context(|| format!("writing {}", resolved.display()))?;
    let mut recorder = Recorder::default();
    recorder.add(Box::new(JsonLines::open(&run_dir.join("metrics.jsonl"), setup.trainer.step)?));
    recorder.add(Box::new(Progress::new(printer)));
    let control = Control::default();
    listen(&control)?;
    let result = train::run(setup, &run_dir, &control, &mut recorder).await?;
    printer.data(&result.display().to_string());
    Ok(())
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

/// The first Ctrl-C (or SIGTERM) asks the loop to save and stop, the second ends the process.
fn listen(control: &Control) -> Result<()> {
    let control = control.clone();
    let handler = move || {
        if control.stop() {
            std::process::exit(130);
        }
    };
    ctrlc::set_handler(handler).map_err(|error| Error::internal(format!("cannot listen for Ctrl-C: {error}")))
}
