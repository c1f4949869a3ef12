//! The training loop.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::control::Control;
use super::save::{Best, ModelWriter};
use super::setup::Setup;
use crate::data::Message;
use crate::error::{Error, ErrorKind, Result};
use crate::generate::{Generator, Sampling};
use crate::metrics::{Event, Recorder, Sample};

/// Trains until the last step, a stop, or an error. The result lies in `run_dir/adapter` (or `run_dir/model` where every
/// weight is trained).
///
/// # Errors
/// An interruption after everything is saved; a divergence with the state before it saved; whatever fails otherwise.
pub async fn run(
    mut setup: Setup,
    run_dir: &Path,
    control: &Control,
    recorder: &mut Recorder,
) -> Result<PathBuf> {
    let start = Instant::now();
    let total = setup.trainer.schedule.total_steps;
    recorder.record(&started(&setup));
    for message in std::mem::take(&mut setup.notices) {
        recorder.record(&Event::Notice { message });
    }
    samples(&setup, recorder).await?;
    let mut stop = false;
    while setup.trainer.step < total && !stop {
        step(&mut setup, run_dir, recorder).await?;
        let step = setup.trainer.step;
        let due = |every: usize| every > 0 && step.is_multiple_of(every);
        if due(setup.config.train.eval_steps) || step == total {
            stop = evaluate(&mut setup, recorder).await?;
        }
        let improved = setup.progress.best.as_ref().is_some_and(|best| best.step == step);
        let interrupted = control.stopping() && step < total;
        if due(setup.config.train.save_steps) || improved || interrupted || step == total {
            save(&setup, run_dir, recorder).await?;
        }
        if interrupted {
            let message = format!("stopped after step {step} of {total}; everything is saved");
            return Err(Error::new(ErrorKind::Interrupted, message).hint("continue with --resume"));
        }
    }
    samples(&setup, recorder).await?;
    let path = finish(&setup, run_dir).await?;
    recorder.record(&Event::Finished {
        steps: setup.trainer.step,
        seconds: start.elapsed().as_secs_f64(),
        path: path.clone(),
    });
    Ok(path)
}

fn started(setup: &Setup) -> Event {
    Event::Started {
        run: String::new(),
        total_epochs: 0.0,
        model: setup.model.name.clone(),
        device: setup.trainer.executor.device_name().to_owned(),
        total_steps: setup.trainer.schedule.total_steps,
        first_step: setup.trainer.step,
        rows: setup.rows,
        validation_rows: setup.validation_rows,
        trained_parameters: setup.trained_parameters,
        total_parameters: setup.model.parameters(),
    }
}

/// One window. If the loss is not finite, the state before it is saved and the error returned.
async fn step(setup: &mut Setup, run_dir: &Path, recorder: &mut Recorder) -> Result<()> {
    let waiting = Instant::now();
    let window = setup.loader.next_window().await?;
    let waited = waiting.elapsed().as_secs_f64() * 1e3;
    let report = match setup.trainer.step(&window, waited).await {
        Ok(report) => report,
        Err(error) if error.kind() == ErrorKind::Diverged && setup.trainer.step > 0 => {
            save(setup, run_dir, recorder).await?;
            return Err(error);
        }
        Err(error) => return Err(error),
    };
    setup.trainer.take_events().iter().for_each(|event| recorder.record(event));
    setup.progress.epoch = window.epoch;
    setup.progress.tokens_seen += window.tokens as u64;
    setup.progress.loader = serde_json::to_value(&window.state_after)
        .map_err(|error| Error::internal(format!("the loader's state cannot be written: {error}")))?;
    if report.step.is_multiple_of(setup.config.log.logging_steps) {
        setup.progress.remember(&report);
        recorder.record(&Event::Step(report));
    }
    Ok(())
}

/// Evaluates; returns whether to stop early.
async fn evaluate(setup: &mut Setup, recorder: &mut Recorder) -> Result<bool> {
    if setup.validation.is_empty() {
        return Ok(false);
    }
    let mut report = setup.trainer.evaluate(&setup.validation, setup.progress.epoch).await?;
    setup.trainer.take_events().iter().for_each(|event| recorder.record(event));
    report.best = setup.progress.best.as_ref().is_none_or(|best| report.eval_loss < best.loss);
    if report.best {
        setup.progress.best = Some(Best { loss: report.eval_loss, step: report.step });
        setup.progress.evaluations_without_improvement = 0;
    } else {
        setup.progress.evaluations_without_improvement += 1;
    }
    setup.progress.remember(&report);
    recorder.record(&Event::Evaluation(report));
    let patience = setup.config.train.early_stopping_patience;
    let stop = patience.is_some_and(|patience| setup.progress.evaluations_without_improvement >= patience);
    if stop {
        let message =
            format!("no better evaluation in the last {}", setup.progress.evaluations_without_improvement);
        recorder.record(&Event::Notice { message });
    }
    Ok(stop)
}

async fn save(setup: &Setup, run_dir: &Path, recorder: &mut Recorder) -> Result<()> {
    let writer = ModelWriter { model: &setup.model, spec: setup.adapter.as_ref() };
    let limit = setup.config.train.save_total_limit;
    let path = setup.progress.save(&setup.trainer, &writer, run_dir, limit).await?;
    recorder.record(&Event::Saved { step: setup.trainer.step, path });
    Ok(())
}

async fn finish(setup: &Setup, run_dir: &Path) -> Result<PathBuf> {
    let writer = ModelWriter { model: &setup.model, spec: setup.adapter.as_ref() };
    let path = run_dir.join(if setup.adapter.is_some() { "adapter" } else { "model" });
    writer.write_final(&path, &setup.trainer.builder.trained, &setup.trainer.trained_values().await?)?;
    Ok(path)
}

/// The configured prompts, continued greedily by the model as it is now.
async fn samples(setup: &Setup, recorder: &mut Recorder) -> Result<()> {
    let Some(tokenizer) = &setup.tokenizer else { return Ok(()) };
    let generator = Generator {
        executor: &setup.trainer.executor,
        decoder: &setup.model.decoder,
        trained: &setup.trainer.builder.trained,
        dtype: setup.model.dtype,
        stop: tokenizer.end_of_sequence_ids(),
    };
    for prompt in &setup.config.train.sample_prompts {
        let text = if tokenizer.has_template() {
            tokenizer.render(&[Message::new("user", prompt.as_str())], None, true)?
        } else {
            prompt.clone()
        };
        let ids = tokenizer.encode(&text)?;
        let limit = setup.config.train.sample_max_tokens;
        let generated = generator.generate(&ids, limit, Sampling::GREEDY, &mut |_| {}).await?;
        let text = tokenizer.decode(&generated.tokens)?;
        recorder.record(&Event::Sample(Sample { step: setup.trainer.step, prompt: prompt.clone(), text }));
    }
    Ok(())
}
