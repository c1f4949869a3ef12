//! A device with the operands of cases in its memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::case::{Case, Fill, Role};
use super::graphs::{OneByOne, repeated};
use crate::error::{Error, Result};
use crate::executor::{AsyncGraphExecutor, HostTensor, StepInputs, WeightLoader};
use crate::graph::{ComputationGraph, DType, FrozenGraph, Operation, TensorType};
use crate::plan::{Plan, compile};

/// How long a timed run shall take at least, so that neither its start nor the clock counts.
const LONG_ENOUGH: Duration = Duration::from_millis(20);
const MOST_COPIES: u32 = 64;
/// Timed runs, of which the median counts; fewer where they are long.
const RUNS: usize = 5;
const LONG: Duration = Duration::from_millis(200);

/// An executor, and the weights that it may ask for.
pub struct Subject {
    pub executor: AsyncGraphExecutor,
    weights: Arc<Mutex<HashMap<String, HostTensor>>>,
}

impl Subject {
    /// # Errors
    /// An internal error if the executor's thread is gone.
    pub async fn new(executor: AsyncGraphExecutor) -> Result<Self> {
        let weights = Arc::new(Mutex::new(HashMap::<String, HostTensor>::new()));
        let shared = weights.clone();
        let load = move |name: &str, _: TensorType| {
            let weight = shared.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
            weight.ok_or_else(|| Error::internal(format!("there is no weight {name}")))
        };
        let loader: Arc<WeightLoader> = Arc::new(load);
        executor.set_weights(loader).await?;
        Ok(Self { executor, weights })
    }

    pub fn target(&self) -> OneByOne<'_> {
        OneByOne(self.executor.target())
    }

    /// Numbers for all leaves, rounded to the types in which `tested` holds them; `self` is the CPU and computes those
    /// that are made.
    ///
    /// # Errors
    /// Whatever a kernel fails with.
    pub async fn values(&self, case: &Case, tested: DType) -> Result<Vec<HostTensor>> {
        let mut values: Vec<HostTensor> = Vec::with_capacity(case.leaves.len());
        for (slot, leaf) in case.leaves.iter().enumerate() {
            let value = match &leaf.fill {
                Fill::Made(build) => {
                    let graph = ComputationGraph::new();
                    let handles = case.handles(&graph, DType::F32, true);
                    let frozen = graph.freeze(&build(&handles))?;
                    let made = self.run(case, DType::F32, frozen, &values).await?.into_iter().next();
                    made.map(|made| made.to_dtype(leaf.dtype(tested)))
                }
                Fill::Uniform(..) | Fill::Ids(_) => leaf.values(slot, tested)?,
            };
            values.push(value.ok_or_else(|| Error::internal("a leaf has no value"))?);
        }
        Ok(values)
    }

    /// All roots of `graph`, then the states as they are after it.
    ///
    /// # Errors
    /// Whatever a kernel fails with.
    pub async fn run(
        &self,
        case: &Case,
        tested: DType,
        graph: FrozenGraph,
        values: &[HostTensor],
    ) -> Result<Vec<HostTensor>> {
        let inputs = self.load(case, tested, values).await?;
        let roots = graph.roots().len();
        let plan = Arc::new(compile(graph, roots, &self.target())?);
        let mut outputs = self.executor.run(plan, inputs).await?.outputs;
        let states = case.leaves.iter().enumerate().filter(|(_, leaf)| leaf.role == Role::State);
        let names = states.map(|(slot, leaf)| leaf.name(slot, leaf.dtype(tested))).collect();
        outputs.extend(self.executor.states(names).await?);
        Ok(outputs)
    }

    /// Puts values where the graphs of `case` look for them, and gives those that each step takes.
    async fn load(&self, case: &Case, tested: DType, values: &[HostTensor]) -> Result<StepInputs> {
        let (mut inputs, mut states, mut weights) = (StepInputs::new(), Vec::new(), HashMap::new());
        for (slot, (leaf, value)) in case.leaves.iter().zip(values).enumerate() {
            let dtype = leaf.dtype(tested);
            let (name, value) = (leaf.name(slot, dtype), value.to_dtype(dtype));
            match case.operation(slot, tested, tested != DType::F64) {
                Operation::Frozen(_) => weights.extend([(name, value)]),
                Operation::State(_) => states.push((name, value)),
                _ => inputs.extend([(name, value)]),
            }
        }
        // A device that has read a weight does not ask again.
        *self.weights.lock().unwrap_or_else(PoisonError::into_inner) = weights;
        self.executor.set_states(states).await?;
        Ok(inputs)
    }

    /// Time of one run of `graph`, of many in a row where it is short.
    ///
    /// # Errors
    /// Whatever a kernel fails with.
    pub async fn time(
        &self,
        case: &Case,
        tested: DType,
        graph: &FrozenGraph,
        values: &[HostTensor],
    ) -> Result<Duration> {
        let inputs = self.load(case, tested, values).await?;
        let once = self.plan(graph, 1)?;
        self.executor.run(once.clone(), inputs.clone()).await?;
        let first = self.executor.run(once.clone(), inputs.clone()).await?.took;
        // Two updates of one state would each wait for the other.
        let updates = graph.nodes().iter().any(|node| node.operation.updates_state());
        let wanted = LONG_ENOUGH.as_secs_f64() / first.as_secs_f64().max(1e-9);
        let copies = if updates { 1 } else { (wanted.ceil() as u32).clamp(1, MOST_COPIES) };
        let plan = if copies == 1 { once } else { self.plan(graph, copies)? };
        let mut runs = vec![self.executor.run(plan.clone(), inputs.clone()).await?.took];
        let count = if runs[0] > LONG { 2 } else { RUNS };
        while runs.len() < count {
            runs.push(self.executor.run(plan.clone(), inputs.clone()).await?.took);
        }
        runs.sort();
        Ok(runs[(runs.len() - 1) / 2] / copies)
    }

    fn plan(&self, graph: &FrozenGraph, copies: u32) -> Result<Arc<Plan>> {
        Ok(Arc::new(compile(repeated(graph, copies)?, 0, &self.target())?))
    }
}
