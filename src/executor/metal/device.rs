//! The device that replays programs, whatever executes the commands.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::leaves::Leaves;
use super::program::{Buffer, Program, Region};
use super::queue::CommandQueue;
use super::record::record;
use super::steps::Steps;
use crate::error::{Error, Result};
use crate::executor::constants::{constant, run_alone};
use crate::executor::device::{DeviceCounters, WeightLoader};
use crate::executor::host_tensor::HostTensor;
use crate::graph::{FrozenNode, Operation, TensorType};
use crate::kernels::Memory;
use crate::plan::{Plan, align};

/// Plans whose programs are kept.
const BOUND_PLANS: usize = 64;

/// Replays programs on a queue.
pub struct ProgramDevice<Q: CommandQueue> {
    pub(super) queue: Q,
    /// What a command buffer may take, as far as the plan's costs tell.
    seconds: f64,
    pub(super) weights: Option<Arc<WeightLoader>>,
    pub(super) leaves: Leaves,
    pub(super) leaf_buffers: Vec<Q::Buffer>,
    /// Types of all states, and the values of those that no plan has asked for yet.
    pub(super) states: HashMap<String, TensorType>,
    pub(super) waiting: HashMap<String, HostTensor>,
    /// Memory for intermediate values with its bytes, shared by all programs: one runs at a time.
    pub(super) own: Vec<(usize, Q::Buffer)>,
    pub(super) bound: Vec<BoundPlan<Q::Buffer>>,
    /// Position in `bound` of the plan that runs.
    pub(super) current: usize,
    pub(super) steps: Steps<Q::Buffer>,
    pub(super) counters: DeviceCounters,
}

/// A plan with its program.
pub(super) struct BoundPlan<B> {
    pub plan: Arc<Plan>,
    pub program: Arc<Program>,
    /// For each batch, those that its command buffer holds if it is the last of them.
    pub ends: Vec<Option<Range<usize>>>,
    pub tables: Option<B>,
}

impl<Q: CommandQueue> ProgramDevice<Q> {
    /// A device whose command buffers are kept below so many `seconds`, as estimated.
    pub fn new(queue: Q, seconds: f64) -> Self {
        Self {
            queue,
            seconds,
            weights: None,
            leaves: Leaves::default(),
            leaf_buffers: Vec::new(),
            states: HashMap::new(),
            waiting: HashMap::new(),
            own: Vec::new(),
            bound: Vec::new(),
            current: 0,
            steps: Steps::default(),
            counters: DeviceCounters::default(),
        }
    }

    pub(super) fn current(&self) -> Result<&BoundPlan<Q::Buffer>> {
        self.bound.get(self.current).ok_or_else(|| Error::internal("no plan is bound"))
    }

    /// Places, loads and computes what a plan reads that no plan before it did, and records its program.
    pub(super) fn bind_new(&mut self, plan: &Arc<Plan>) -> Result<()> {
        let keys = plan.graph.value_fingerprints();
        let fresh = self.leaves.place(plan, &keys);
        let filled =
            self.allocate_leaves().and_then(|()| fresh.iter().try_for_each(|&i| self.fill(plan, &keys, i)));
        if let Err(error) = filled {
            // Whoever asks again finds these without a place, and so without a value.
            fresh.iter().for_each(|&index| self.leaves.forget_node(&plan.graph.nodes()[index], &keys[index]));
            return Err(error);
        }
        let constants = plan.cached.len() as u64;
        let computed =
            fresh.iter().filter(|&&index| plan.graph.nodes()[index].operation.computes()).count() as u64;
        self.counters.tensor_cache_misses += computed;
        self.counters.tensor_cache_hits += constants.saturating_sub(computed);
        let program = record(plan, &self.leaves, &keys, self.seconds)?;
        self.reserve(&program)?;
        let tables =
            (!program.tables.is_empty()).then(|| self.queue.allocate(program.tables.len(), "tables"));
        let tables = tables.transpose()?;
        if let Some(tables) = &tables {
            self.queue.upload(tables, 0, &program.tables)?;
        }
        if self.bound.len() >= BOUND_PLANS {
            self.queue.synchronize()?;
            let oldest = self.bound.remove(0);
            self.queue.release(oldest.tables.into_iter().collect());
        }
        let mut ends = vec![None; program.batches.len()];
        for batches in program.command_buffers() {
            let last = batches.end - 1;
            ends[last] = Some(batches);
        }
        self.bound.push(BoundPlan { plan: plan.clone(), program: Arc::new(program), ends, tables });
        self.current = self.bound.len() - 1;
        Ok(())
    }

    /// Leaves never move: programs have their places in their commands.
    fn allocate_leaves(&mut self) -> Result<()> {
        for &bytes in &self.leaves.buffers[self.leaf_buffers.len()..] {
            self.leaf_buffers.push(self.queue.allocate(bytes, "weights and states")?);
        }
        Ok(())
    }

    /// Makes room for a program's intermediate values. The largest buffers of all programs are one, and so on downwards:
    /// commands name them by number, so that they may grow.
    fn reserve(&mut self, program: &Program) -> Result<()> {
        for (index, &bytes) in program.buffers.iter().enumerate() {
            if self.own.get(index).is_some_and(|(has, _)| *has >= bytes) {
                continue;
            }
            if index < self.own.len() {
                self.queue.synchronize()?;
                let buffer = self.queue.allocate(bytes, "intermediate values")?;
                let (_, small) = std::mem::replace(&mut self.own[index], (bytes, buffer));
                self.queue.release(vec![small]);
            } else {
                self.own.push((bytes, self.queue.allocate(bytes, "intermediate values")?));
            }
        }
        Ok(())
    }

    /// Writes the value of a leaf or constant that was placed just now.
    fn fill(&mut self, plan: &Plan, keys: &[[u8; 32]], index: usize) -> Result<()> {
        let node = &plan.graph.nodes()[index];
        let region = self.leaves.region(plan, index, &keys[index])?;
        match &node.operation {
            Operation::Frozen(name) => {
                let value = weight(self.weights.as_ref(), name, node.tensor_type())?;
                self.upload(region, value.bytes())
            }
            Operation::State(name) => {
                let value = self.waiting.get(name.as_ref());
                let value =
                    value.ok_or_else(|| Error::internal(format!("the state {name} was never set")))?;
                if value.tensor != node.tensor_type() {
                    let (has, takes) = (value.tensor, node.tensor_type());
                    return Err(Error::internal(format!("{name} is {has}, but a plan takes {takes}")));
                }
                let value = value.clone();
                self.upload(region, value.bytes())?;
                self.waiting.remove(name.as_ref());
                Ok(())
            }
            _ => {
                let weights = self.weights.clone();
                let mut load = |node: &FrozenNode, name: &str| {
                    let value = weight(weights.as_ref(), name, node.tensor_type())?;
                    let memory = Memory::zeroed(node.tensor_type().bytes())?;
                    memory.operand(0, node.tensor_type())?.write(value.bytes())?;
                    Ok(Arc::new(memory))
                };
                let bytes = |node: &FrozenNode| node.outputs.iter().map(|output| align(output.bytes())).sum();
                let value = constant(&plan.graph, index, &bytes, &mut load, &mut run_alone)?;
                let whole = value.operand(0, node.tensor_type())?.input_of_len::<u8>(value.bytes());
                self.upload(region, whole.as_slice())
            }
        }
    }

    pub(super) fn upload(&mut self, region: Region, bytes: &[u8]) -> Result<()> {
        let Buffer::Leaf(buffer) = region.buffer else { return Err(Error::internal("not a leaf")) };
        self.queue.upload(&self.leaf_buffers[buffer], region.offset, bytes)
    }
}

fn weight(loader: Option<&Arc<WeightLoader>>, name: &str, tensor: TensorType) -> Result<HostTensor> {
    let loader = loader.ok_or_else(|| Error::internal(format!("no one gives the weight {name}")))?;
    Ok(loader(name, tensor)?.to_dtype(tensor.dtype))
}
