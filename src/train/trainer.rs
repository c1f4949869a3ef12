//! Steps and evaluations on an executor: windows of rows in, reports out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::clock::StepClock;
use super::pending::Pending;
use super::prefix::{FrozenPrefix, PREFIX_HIDDEN, PrefixCounts, Source};
use super::step::{StepBuilder, StepKind};
use crate::data::Batch;
use crate::error::{Error, Result};
use crate::executor::{AsyncGraphExecutor, HostTensor, StepInputs};
use crate::metrics::{EvaluationReport, Event, PassCount, StepReport};
use crate::model::master;
use crate::optim::{Schedule, first_moment_name, gradient_name, second_moment_name};
use crate::passes::PassReport;
use crate::plan::Plan;

/// The most inputs that a step has.
const STEP_INPUTS: usize = 9;

/// Values by name: trained weights, or the optimizer's moments.
pub type NamedTensors = BTreeMap<String, HostTensor>;

/// Owns the progress of a run: what is trained lives in the executor's states.
pub struct Trainer {
    pub executor: AsyncGraphExecutor,
    pub builder: StepBuilder,
    pub schedule: Schedule,
    /// What the schedule is multiplied with.
    pub learning_rate_scale: f64,
    /// Times the stages of steps.
    pub clock: StepClock,
    /// Decides dropout.
    pub seed: u64,
    /// Optimizer steps submitted; as long as results are waited for, those done.
    pub step: usize,
    /// Steps whose results are waited for together where they stay on the device until then.
    pub read_steps: usize,
    /// Steps after `step` whose updates the trained values may hold: those submitted before it was noticed that one
    /// diverged.
    pub ahead: usize,
    /// Layers whose results are kept from epoch to epoch; `None` runs all of them in every step.
    pub prefix: Option<FrozenPrefix>,
    /// Plans compiled, and notices, since they were last asked for.
    events: Mutex<Vec<Event>>,
    /// Names of trained values, sorted.
    trained: Vec<String>,
    /// Whether the states that sum gradients over a window exist.
    pub(super) accumulators: bool,
    /// Steps that were submitted and whose results nobody has read.
    pub(super) pending: Pending,
    /// Of steps whose results were read, the oldest first.
    pub(super) reports: Vec<StepReport>,
}

impl Trainer {
    /// Puts the trained values and zeroed moments into the executor.
    ///
    /// # Errors
    /// A memory error if the device has no room for them.
    pub async fn new(
        executor: AsyncGraphExecutor,
        builder: StepBuilder,
        schedule: Schedule,
        seed: u64,
        initial: NamedTensors,
    ) -> Result<Self> {
        let trained: Vec<String> = initial.keys().cloned().collect();
        let mut states = Vec::with_capacity(initial.len() * 3);
        for (name, value) in initial {
            let zeros = HostTensor::zeros(value.tensor);
            for state in [first_moment_name(&name), second_moment_name(&name)] {
                states.push((state, zeros.clone()));
            }
            states.push((name, value));
        }
        executor.set_states(states).await?;
        let clock = StepClock::default();
        executor.observe(Box::new(clock.clone())).await?;
        Ok(Self {
            executor,
            builder,
            schedule,
            learning_rate_scale: 1.0,
            clock,
            seed,
            step: 0,
            read_steps: 1,
            ahead: 0,
            prefix: None,
            events: Mutex::default(),
            trained,
            accumulators: false,
            pending: Pending::default(),
            reports: Vec::new(),
        })
    }

    /// Makes room for gradients summed over a window, when the first window with several micro-batches comes.
    pub(super) async fn prepare_accumulators(&mut self) -> Result<()> {
        let parameters = self.executor.states(self.trained.clone()).await?;
        let zeros =
            |(name, value): (&String, HostTensor)| (gradient_name(name), HostTensor::zeros(value.tensor));
        self.executor.set_states(self.trained.iter().zip(parameters).map(zeros).collect()).await?;
        self.accumulators = true;
        Ok(())
    }

    /// Mean loss over the supervised tokens of `batches`; `best` is left to the caller.
    ///
    /// # Errors
    /// A device error if a kernel fails.
    pub async fn evaluate(&self, batches: &[Batch], epoch: f64) -> Result<EvaluationReport> {
        let start = Instant::now();
        let (mut sum, mut supervised_tokens) = (0.0, 0);
        for batch in batches {
            let (plan, inputs) = self.prepared(StepKind::Evaluate, batch, 1.0).await?;
            let outcome = self.executor.run(plan, inputs).await?;
            sum += first(&outcome.outputs, 0)?;
            supervised_tokens += batch.supervised_tokens;
        }
        let eval_loss = sum / supervised_tokens.max(1) as f64;
        Ok(EvaluationReport {
            step: self.step,
            epoch,
            eval_loss,
            perplexity: eval_loss.exp(),
            supervised_tokens,
            eval_ms: start.elapsed().as_secs_f64() * 1e3,
            best: false,
        })
    }

    /// The trained values as they are now.
    ///
    /// # Errors
    /// A device error if they cannot be read.
    pub async fn trained_values(&self) -> Result<NamedTensors> {
        self.read(self.trained.clone()).await
    }

    /// The optimizer's running means, by the names of their states.
    ///
    /// # Errors
    /// A device error if they cannot be read.
    pub async fn moments(&self) -> Result<NamedTensors> {
        let names = self.trained.iter().flat_map(|name| [first_moment_name(name), second_moment_name(name)]);
        self.read(names.collect()).await
    }

    /// Puts values of an earlier run back.
    ///
    /// # Errors
    /// A data error if a value is missing, unknown or of another shape.
    pub async fn restore(&mut self, step: usize, values: NamedTensors) -> Result<()> {
        let current: NamedTensors =
            self.trained_values().await?.into_iter().chain(self.moments().await?).collect();
        for (name, value) in &current {
            let saved = values.get(name).map(|saved| saved.tensor);
            if saved != Some(value.tensor) {
                let found = saved.map_or("nothing".to_owned(), |tensor| tensor.to_string());
                let message =
                    format!("the checkpoint holds {found} for {name}, the run needs {}", value.tensor);
                return Err(
                    Error::data(message).hint("resume with the configuration that the run was started with")
                );
            }
        }
        let known = values.into_iter().filter(|(name, _)| current.contains_key(name)).collect();
        self.executor.set_states(known).await?;
        self.step = step;
        Ok(())
    }

    /// The rate of the next step.
    pub fn learning_rate(&self) -> f64 {
        self.schedule.learning_rate(self.step) * self.learning_rate_scale
    }

    /// Reports of the plans that were compiled since the last call, and notices.
    pub fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut self.events())
    }

    /// What the cache of the frozen prefix holds and how often it was asked; `None` where there is none.
    pub fn prefix_counts(&self) -> Option<PrefixCounts> {
        self.prefix.as_ref().map(FrozenPrefix::counts)
    }

    /// Where the graphs of steps and evaluations begin.
    pub fn source(&self) -> Source {
        self.prefix.as_ref().map_or(Source::Tokens, FrozenPrefix::source)
    }

    /// What leaves the lowest `layers` layers for a batch: [n, hidden].
    ///
    /// # Errors
    /// A device error if a kernel fails.
    pub async fn run_prefix(&self, layers: usize, batch: &Batch) -> Result<HostTensor> {
        let plan = self.reported(batch, false, || {
            self.builder.prefix_plan(&self.executor, layers, batch.rows, batch.sequence)
        })?;
        let outcome = self.executor.run(plan, tokens(batch)?).await?;
        outcome.outputs.into_iter().next().ok_or_else(|| Error::internal("the prefix gave no output"))
    }

    /// The plan of a micro-batch and its inputs. Where the prefix is kept, the step begins above it.
    pub(super) async fn prepared(
        &self,
        kind: StepKind,
        batch: &Batch,
        scale: f64,
    ) -> Result<(Arc<Plan>, StepInputs)> {
        let mut inputs = self.inputs(batch, scale)?;
        if let Some(hidden) = self.prefix_hidden(batch).await? {
            inputs.insert(PREFIX_HIDDEN.into(), hidden);
        }
        let source = self.source();
        let plan = self.reported(batch, kind.updates(), || {
            self.builder.plan_from(source, &self.executor, kind, batch.rows, batch.sequence)
        })?;
        Ok((plan, inputs))
    }

    /// What leaves the prefix for a batch, computed for the rows that are not known: [n, hidden]. `None` where no
    /// prefix is kept.
    ///
    /// # Errors
    /// A device error if a kernel fails.
    pub async fn prefix_hidden(&self, batch: &Batch) -> Result<Option<HostTensor>> {
        let Some(prefix) = &self.prefix else { return Ok(None) };
        let mut rows = prefix.look_up(batch, self.builder.token_bytes());
        if let Some(missing) = rows.missing(batch) {
            let computed = self.run_prefix(prefix.layers, &missing).await?;
            if let Some(message) = prefix.keep(&mut rows, &computed) {
                self.events().push(Event::Notice { message });
            }
        }
        Ok(Some(rows.hidden(self.builder.decoder.hidden, self.builder.dtype)?))
    }

    /// The plan that `make` gives; compiling it is reported.
    fn reported(
        &self,
        batch: &Batch,
        updates: bool,
        make: impl FnOnce() -> Result<Arc<Plan>>,
    ) -> Result<Arc<Plan>> {
        let start = Instant::now();
        let misses = self.executor.plan_counts().misses;
        let plan = make()?;
        if self.executor.plan_counts().misses > misses {
            let report = Event::Planned {
                rows: batch.rows,
                sequence: batch.sequence,
                updates,
                operations: plan.operations(),
                batches: plan.batches.len(),
                arena_bytes: plan.arena_bytes,
                operations_before: plan.passes.first().map_or(0, |pass| pass.operations_before),
                passes: plan.passes.iter().map(pass_count).collect(),
                widths: plan.batches.iter().map(|batch| batch.len() as u32).collect(),
                kernels: plan.operations(),
                plan_ms: start.elapsed().as_secs_f64() * 1e3,
            };
            self.events().push(report);
        }
        Ok(plan)
    }

    pub(super) fn events(&self) -> MutexGuard<'_, Vec<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(&self, names: Vec<String>) -> Result<NamedTensors> {
        let values = self.executor.states(names.clone()).await?;
        Ok(names.into_iter().zip(values).collect())
    }

    fn inputs(&self, batch: &Batch, loss_scale: f64) -> Result<StepInputs> {
        let mut inputs = tokens(batch)?;
        inputs.insert("targets".into(), of_tokens(batch, &batch.targets)?);
        inputs.insert("loss_scale".into(), self.number(loss_scale)?);
        Ok(inputs)
    }

    pub(super) fn number(&self, value: f64) -> Result<HostTensor> {
        Ok(HostTensor::f64(&[1], vec![value])?.to_dtype(master(self.builder.dtype)))
    }

    /// The run's seed mixed with the micro-batch's number in its window, and the step.
    pub(super) fn dropout_seed(&self, micro_batch: usize) -> Result<HostTensor> {
        // Multiples of the golden ratio keep the seeds of neighbours apart.
        let spread = (micro_batch as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let seed = self.seed ^ spread;
        HostTensor::u32(&[2], vec![(seed ^ (seed >> 32)) as u32, self.step as u32])
    }
}

/// The inputs that say what the tokens are.
fn tokens(batch: &Batch) -> Result<StepInputs> {
    let mut inputs = StepInputs::with_capacity(STEP_INPUTS);
    inputs.insert("input_ids".into(), of_tokens(batch, &batch.input_ids)?);
    inputs.insert("positions".into(), of_tokens(batch, &batch.positions)?);
    inputs.insert("segments".into(), of_tokens(batch, &batch.segments)?);
    Ok(inputs)
}

/// One value for each token: `[n]`.
fn of_tokens(batch: &Batch, values: &[u32]) -> Result<HostTensor> {
    HostTensor::u32(&[batch.rows * batch.sequence], values.to_vec())
}

pub(super) fn first(outputs: &[HostTensor], index: usize) -> Result<f64> {
    let value = outputs.get(index).and_then(|output| output.to_f64().first().copied());
    value.ok_or_else(|| Error::internal("a step gave fewer outputs than its plan promises"))
}

fn pass_count(report: &PassReport) -> PassCount {
    PassCount { name: report.name.to_owned(), operations: report.operations_after }
}
