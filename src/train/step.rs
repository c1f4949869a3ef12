//! The step as a graph: forward, loss, backward, clipping and update, or the part of it that a micro-batch needs.

use std::sync::Arc;

use super::prefix::Source;
use crate::autodiff::gradients;
use crate::error::{Error, Result};
use crate::executor::AsyncGraphExecutor;
use crate::graph::{ComputationGraph, DType, FrozenGraph, LazyTensor, Operation};
use crate::model::{DecoderSpec, Parameters, Tokens, Trained, master};
use crate::optim::{AdamW, accumulated};
use crate::passes::decompose;
use crate::plan::{Plan, PlanKey, Recompute, Target, compile, compile_training};

use super::memory::PlannedMemory;

/// Which part of an optimizer step a micro-batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StepKind {
    /// The window has one micro-batch: gradients go straight into the update.
    Only,
    /// Gradients replace the accumulated ones.
    First,
    /// Gradients are added to the accumulated ones.
    Middle,
    /// Gradients are added to the accumulated ones, and the sum goes into the update.
    Last,
    /// Forward and loss alone.
    Evaluate,
}

impl StepKind {
    /// The kind of micro-batch `index` of a window of `count`.
    pub fn of(index: usize, count: usize) -> Self {
        match (index, index + 1 == count) {
            (0, true) => Self::Only,
            (0, false) => Self::First,
            (_, true) => Self::Last,
            (_, false) => Self::Middle,
        }
    }

    pub fn updates(self) -> bool {
        matches!(self, Self::Only | Self::Last)
    }
}

/// Everything that decides the graph of a step but the shape of its batch.
#[derive(Debug, Clone)]
pub struct StepBuilder {
    pub decoder: DecoderSpec,
    pub trained: Trained,
    /// Of frozen weights and activations.
    pub dtype: DType,
    pub optimizer: AdamW,
    /// The longest row that the run allows.
    pub max_positions: usize,
    /// Bytes that a step may take in all.
    pub memory_budget: Option<u64>,
}

/// A step's graph, and how many of its roots are read back.
pub struct StepGraph {
    pub graph: FrozenGraph,
    pub read_back: usize,
    /// Nodes built before dead ones were dropped and equal ones joined.
    pub built: usize,
}

impl StepBuilder {
    /// The plan for a micro-batch of `rows` rows of `sequence` tokens, from the executor's cache if it is there.
    ///
    /// # Errors
    /// A shape error if the model's description does not fit together.
    pub fn plan(
        &self,
        executor: &AsyncGraphExecutor,
        kind: StepKind,
        rows: usize,
        sequence: usize,
    ) -> Result<Arc<Plan>> {
        self.plan_from(Source::Tokens, executor, kind, rows, sequence)
    }

    /// As [`Self::plan`], for a step that begins at `source`.
    ///
    /// # Errors
    /// As for [`Self::plan`].
    pub fn plan_from(
        &self,
        source: Source,
        executor: &AsyncGraphExecutor,
        kind: StepKind,
        rows: usize,
        sequence: usize,
    ) -> Result<Arc<Plan>> {
        let device = executor.device_name().to_owned();
        let key = PlanKey {
            program: self.fingerprint(&(kind, source)),
            shape: (rows, sequence),
            device,
            memory_budget: self.memory_budget,
        };
        executor.plan(&key, |target| self.compile_from(source, kind, rows, sequence, target))
    }

    /// Builds and schedules a step. What is cheap to compute twice is not kept for the backward pass; under a budget that
    /// this does not meet, as much more as it takes.
    ///
    /// # Errors
    /// A shape error if the model's description does not fit together. A plan larger than the budget is no error.
    pub fn compile(&self, kind: StepKind, rows: usize, sequence: usize, target: &dyn Target) -> Result<Plan> {
        self.compile_from(Source::Tokens, kind, rows, sequence, target)
    }

    /// As [`Self::compile`], for a step that begins at `source`.
    fn compile_from(
        &self,
        source: Source,
        kind: StepKind,
        rows: usize,
        sequence: usize,
        target: &dyn Target,
    ) -> Result<Plan> {
        let step = self.build_from(source, kind, rows, sequence, target)?;
        if kind == StepKind::Evaluate || !target.recomputes() {
            return compile(step.graph, step.read_back, target);
        }
        let plan = compile_training(step.graph.clone(), step.read_back, target, Recompute::Cheap)?;
        let Some(budget) = self.memory_budget else { return Ok(plan) };
        let budget = usize::try_from(budget).unwrap_or(usize::MAX);
        let planned = PlannedMemory::of(&plan, target);
        let total = planned.total + self.weights_below(source, target)?;
        if total <= budget {
            return Ok(plan);
        }
        let arena = budget.saturating_sub(total - planned.arena);
        compile_training(step.graph, step.read_back, target, Recompute::UntilFits(arena))
    }

    /// Names the graphs of one part of a step, whatever the shape of the batch.
    pub(super) fn fingerprint(&self, part: &impl std::fmt::Debug) -> [u8; 32] {
        *blake3::hash(format!("{self:?} {part:?}").as_bytes()).as_bytes()
    }

    /// Builds the graph. Inputs are those of [`Tokens::packed`], `targets` u32 `[n]`, `loss_scale` `[1]`, `dropout_seed`
    /// u32 `[2]` where there is dropout, and for updates `learning_rate` and `step` `[1]`.
    ///
    /// Outputs: the scaled sum of losses `[1]`, and for updates the norm of the gradients `[1]`.
    ///
    /// # Errors
    /// A shape error if the model's description does not fit together.
    pub fn build(
        &self,
        kind: StepKind,
        rows: usize,
        sequence: usize,
        target: &dyn Target,
    ) -> Result<StepGraph> {
        self.build_from(Source::Tokens, kind, rows, sequence, target)
    }

    /// As [`Self::build`], for a step that begins at `source`, whose input replaces `input_ids`.
    ///
    /// # Errors
    /// As for [`Self::build`].
    pub fn build_from(
        &self,
        source: Source,
        kind: StepKind,
        rows: usize,
        sequence: usize,
        target: &dyn Target,
    ) -> Result<StepGraph> {
        let (loss, names) = self.loss(source, kind, rows, sequence);
        let lacks_kernel = |operation: &Operation| target.lacks_kernel(operation);
        let plain = decompose(&loss.graph().freeze(std::slice::from_ref(&loss))?, &lacks_kernel)?;
        let loss = plain.thaw().pop().ok_or_else(|| Error::internal("the loss was lost"))?;
        let graph = loss.graph().clone();
        let mut outputs = vec![loss.clone()];
        let mut effects = Vec::new();
        if kind != StepKind::Evaluate {
            let trained: Vec<(String, LazyTensor)> = names
                .into_iter()
                .map(|(name, t)| (name.clone(), graph.state(&name, t.dims(), t.dtype())))
                .collect();
            let handles: Vec<LazyTensor> = trained.iter().map(|(_, handle)| handle.clone()).collect();
            let sums = self.accumulate(kind, &trained, gradients(&loss, &handles)?, &mut effects);
            if kind.updates() {
                let update = self.optimizer.update(&trained, &sums);
                let update =
                    update.ok_or_else(|| Error::user("nothing is trained: no module has an adapter"))?;
                outputs.push(update.grad_norm);
                effects.extend(update.effects);
            }
        }
        let read_back = outputs.len();
        outputs.extend(effects);
        let built = graph.len();
        let graph = decompose(&graph.freeze(&outputs)?, &lacks_kernel)?;
        Ok(StepGraph { graph, read_back, built })
    }

    /// The scaled loss, and the trained values it depends on.
    fn loss(
        &self,
        source: Source,
        kind: StepKind,
        rows: usize,
        sequence: usize,
    ) -> (LazyTensor, Vec<(String, LazyTensor)>) {
        let graph = ComputationGraph::new();
        let training = kind != StepKind::Evaluate;
        let seed = (training && self.has_dropout()).then(|| graph.input("dropout_seed", &[2], DType::U32));
        let parameters = Parameters::new(&graph, &self.trained, self.dtype, seed);
        let tokens = Tokens::packed(&graph, rows, sequence, self.max_positions);
        let hidden = self.hidden_states(source, &parameters, &tokens);
        let targets = graph.input("targets", &[rows * sequence], DType::U32);
        let losses = self.decoder.losses(&parameters, &hidden, &targets);
        let scale = graph.input("loss_scale", &[1], master(self.dtype));
        (losses.sum_all().times(&scale), parameters.trained())
    }

    fn has_dropout(&self) -> bool {
        match &self.trained {
            Trained::Adapters(adaptation) => adaptation.pairs.values().any(|adapted| adapted.dropout > 0.0),
            Trained::All | Trained::Nothing => false,
        }
    }

    /// Adds what the window's earlier micro-batches left, or leaves the sum for the later ones.
    fn accumulate(
        &self,
        kind: StepKind,
        trained: &[(String, LazyTensor)],
        gradients: Vec<LazyTensor>,
        effects: &mut Vec<LazyTensor>,
    ) -> Vec<LazyTensor> {
        let sum = |((name, parameter), gradient): (&(String, LazyTensor), LazyTensor)| {
            let so_far = accumulated(parameter, name);
            let sum = match kind {
                StepKind::Middle | StepKind::Last => so_far.plus(&gradient),
                StepKind::Only | StepKind::First | StepKind::Evaluate => gradient,
            };
            if matches!(kind, StepKind::First | StepKind::Middle) {
                effects.push(so_far.then(Operation::Assign, &[&sum]));
            }
            sum
        };
        trained.iter().zip(gradients).map(sum).collect()
    }
}
