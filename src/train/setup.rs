//! From a configuration to a trainer with its data.

use std::path::PathBuf;
use std::sync::Arc;

use super::adapter;
use super::hub_data::local_data;
use super::model::{OpenModel, open_executor};
use super::prefix;
use super::rows::Rows;
use super::save::Progress;
use super::{NamedTensors, PlannedMemory, StepBuilder, StepKind, Trainer};
use crate::adapter::AdapterSpec;
use crate::checkpoint::TrainerState;
use crate::config::{Method, RunConfig, RunLength, ScheduleKind};
use crate::data::bucket_length;
use crate::data::loader::evaluation_batches;
use crate::data::{Batch, ChatTokenizer, Dataset, PrefetchingLoader};
use crate::error::Result;
use crate::executor::{AsyncGraphExecutor, kind_of};
use crate::graph::Operation;
use crate::metrics::Event;
use crate::model::Trained;
use crate::optim::{AdamW, Schedule, ScheduleShape};

/// A run before its first step.
pub struct Setup {
    pub config: RunConfig,
    pub model: OpenModel,
    pub tokenizer: Option<Arc<ChatTokenizer>>,
    /// `None` where every weight is trained.
    pub adapter: Option<AdapterSpec>,
    pub trainer: Trainer,
    pub loader: PrefetchingLoader,
    pub validation: Vec<Batch>,
    pub rows: usize,
    pub validation_rows: usize,
    pub trained_parameters: usize,
    pub progress: Progress,
    /// Memory of the largest step.
    pub planned: PlannedMemory,
    /// What the user should know before the first step.
    pub notices: Vec<String>,
    /// Fused operations that run as plain ones.
    pub fallbacks: Vec<Event>,
}

/// Opens everything, checks that it fits together, and continues from `resume` if it is given. `counted` is told how
/// many rows have been tokenized.
///
/// # Errors
/// A user or data error that says what does not fit; nothing has been written then.
pub async fn setup(
    config: RunConfig,
    model: OpenModel,
    resume: Option<&PathBuf>,
    counted: &mut (dyn FnMut(usize) + Send),
) -> Result<Setup> {
    let tokenizer = open_tokenizer(&config, &model)?.map(Arc::new);
    let saved = resume.map(|folder| Progress::load(folder)).transpose()?;
    let position = saved.as_ref().map(|(progress, ..)| progress);
    let vocab_size = model.source.config.vocab_size;
    let data = local_data(&config, model.downloads.as_ref())?;
    let Rows { loader, count: rows, validation, longest, mut notices } =
        Rows::open(&config, &data, tokenizer.as_ref(), vocab_size, position, counted)?;
    let validation_rows = validation.as_ref().map_or(0, Dataset::len);
    let evaluated = validation.map_or_else(Vec::new, |rows| {
        evaluation_batches(&rows, config.train.batch_size, config.data.max_length).collect()
    });
    let (adapter, trained, initial) = trained(&config, &model)?;
    notices.extend(model.source.config.notices());
    notices.extend(adapter::untied(&trained, &model));
    let builder = StepBuilder {
        decoder: model.decoder.clone(),
        trained,
        dtype: model.dtype,
        optimizer: optimizer(&config),
        max_positions: config.data.max_length,
        memory_budget: config.model.memory_budget,
    };
    let windows_per_epoch = loader.windows_per_epoch();
    let schedule = schedule(&config, windows_per_epoch);
    let trained_parameters = initial.values().map(|value| value.tensor.shape.elements()).sum();
    let executor = open_executor(config.model.device, config.model.threads)?;
    let longest = bucket_length(longest, config.data.max_length);
    let planned = fits(&config, &builder, &executor, longest)?;
    let fallbacks = fallbacks(&executor);
    executor.set_weights(model.weight_loader()).await?;
    let mut trainer = Trainer::new(executor, builder, schedule, config.train.seed, initial).await?;
    trainer.read_steps = config.log.read_steps;
    notices.extend(prefix::choose(&config, &model, &mut trainer, windows_per_epoch, planned.total).await?);
    let mut progress = Progress::default();
    if let (Some(folder), Some((saved, step, tensors))) = (resume, saved) {
        trainer.restore(step, tensors).await?;
        notices.push(format!("resuming after step {step} from {}", folder.display()));
        trainer.learning_rate_scale = saved.learning_rate_scale;
        progress = saved;
    }
    progress.settings = settings(&config, windows_per_epoch);
    Ok(Setup {
        loader,
        validation: evaluated,
        config,
        model,
        tokenizer,
        adapter,
        trainer,
        rows,
        validation_rows,
        trained_parameters,
        progress,
        planned,
        notices,
        fallbacks,
    })
}

/// Plans the largest step before anything is loaded: what does not fit is refused now, and not after minutes.
fn fits(
    config: &RunConfig,
    builder: &StepBuilder,
    executor: &AsyncGraphExecutor,
    longest: usize,
) -> Result<PlannedMemory> {
    let kind = StepKind::of(0, config.train.gradient_accumulation_steps);
    let kind = if kind.updates() { kind } else { StepKind::Last };
    let rows = config.train.batch_size;
    let plan = builder.plan(executor, kind, rows, longest)?;
    let planned = PlannedMemory::of(&plan, executor.target());
    if let Some(budget) = config.model.memory_budget {
        planned.check(budget, rows, longest)?;
    }
    Ok(planned)
}

/// The fused operations of a step that the device has no kernels for.
fn fallbacks(executor: &AsyncGraphExecutor) -> Vec<Event> {
    let fused = [Operation::SwiGlu, Operation::ProjectedCrossEntropy { soft_cap: None }];
    let lacking = fused.iter().filter(|operation| executor.target().lacks_kernel(operation));
    let event = |operation: &Operation| Event::Fallback {
        operation: kind_of(operation),
        reason: format!("{} has no kernel for it", executor.device_name()),
    };
    lacking.map(event).collect()
}

/// What trainer_state.json says of the configuration.
fn settings(config: &RunConfig, windows_per_epoch: usize) -> TrainerState {
    let epochs = match config.train.length {
        RunLength::Epochs(epochs) => epochs,
        // How long an epoch is, is only known once all rows are.
        RunLength::Steps(_) if config.data.streaming => 0.0,
        RunLength::Steps(steps) => steps as f64 / windows_per_epoch.max(1) as f64,
    };
    TrainerState {
        eval_steps: config.train.eval_steps as u64,
        logging_steps: config.log.logging_steps as u64,
        num_train_epochs: epochs.ceil() as u64,
        save_steps: config.train.save_steps as u64,
        train_batch_size: config.train.batch_size as u64,
        ..TrainerState::default()
    }
}

/// The model's tokenizer with the chat template that the configuration chooses. Tokenized rows need no tokenizer, so a
/// model without one is an error only when a row asks for it.
///
/// # Errors
/// A data error if the tokenizer or the template is damaged.
pub fn open_tokenizer(config: &RunConfig, model: &OpenModel) -> Result<Option<ChatTokenizer>> {
    let tokenizer = match (model.tokenizer(), model.folder()) {
        (Ok(tokenizer), _) => tokenizer,
        (Err(_), Some(folder)) if !folder.join("tokenizer.json").exists() => return Ok(None),
        (Err(error), _) => return Err(error),
    };
    match &config.data.chat_template {
        Some(template) => Ok(Some(tokenizer.with_template_file(template)?)),
        None => Ok(Some(tokenizer)),
    }
}

/// What is trained, with its values at the start.
fn trained(config: &RunConfig, model: &OpenModel) -> Result<(Option<AdapterSpec>, Trained, NamedTensors)> {
    if config.adapter.method == Method::Full {
        return Ok((None, Trained::All, model.all_weights()?));
    }
    let (spec, adaptation, values) = adapter::starting(config, model)?;
    Ok((Some(spec), Trained::Adapters(adaptation), values))
}

pub fn optimizer(config: &RunConfig) -> AdamW {
    let section = &config.optimizer;
    AdamW {
        betas: (section.betas.0, section.betas.1),
        epsilon: section.eps,
        weight_decay: section.weight_decay,
        max_grad_norm: section.max_grad_norm,
    }
}

fn schedule(config: &RunConfig, windows_per_epoch: usize) -> Schedule {
    let total_steps = match config.train.length {
        RunLength::Steps(steps) => steps,
        RunLength::Epochs(epochs) => ((epochs * windows_per_epoch as f64).ceil() as usize).max(1),
    };
    Schedule {
        shape: match config.schedule.name {
            ScheduleKind::Constant => ScheduleShape::Constant,
            ScheduleKind::Linear => ScheduleShape::Linear,
            ScheduleKind::Cosine => ScheduleShape::Cosine,
        },
        peak: config.optimizer.learning_rate,
        minimum: config.schedule.min_learning_rate,
        warmup_steps: config.schedule.warmup_steps,
        total_steps,
    }
}
