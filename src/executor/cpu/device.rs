//! Memory and kernels of the CPU, bound plan by plan.

use std::collections::HashMap;
use std::sync::Arc;

use super::constants::materialize;
use super::target::{CpuOptions, CpuTarget};
use crate::error::{Error, Result};
use crate::executor::constants::split;
use crate::executor::device::{Device, DeviceCounters, WeightLoader};
use crate::executor::host_tensor::HostTensor;
use crate::executor::pool::{Batch, ThreadPool};
use crate::executor::tensor_cache::TensorCache;
use crate::graph::{FrozenNode, Operation, TensorType};
use crate::kernels::{self, Kernel, Memory, Operand};
use crate::plan::{Place, Plan, Target};

/// Plans whose kernels stay bound at once.
const BOUND_PLANS: usize = 64;

/// The CPU as a device.
pub struct CpuDevice {
    options: CpuOptions,
    pub(super) pool: ThreadPool,
    pub(super) weights: Option<Arc<WeightLoader>>,
    /// Frozen weights that operations read as they are, and states.
    pub(super) leaves: HashMap<String, (TensorType, Arc<Memory>)>,
    pub(super) cache: TensorCache<Memory>,
    arena: Arc<Memory>,
    bound: Vec<Bound>,
    /// Position in `bound` of the plan that runs.
    current: usize,
}

/// A plan with its kernels at their addresses.
struct Bound {
    plan: Arc<Plan>,
    batches: Vec<Arc<Batch>>,
    /// The operations of each batch as batches of their own.
    operations: Vec<Vec<Arc<Batch>>>,
    operands: Vec<Option<Operand>>,
    /// Keeps the memory alive that kernels point to.
    _memory: Vec<Arc<Memory>>,
}

impl CpuDevice {
    /// # Errors
    /// A device error if the system gives no threads.
    pub fn new(options: CpuOptions) -> Result<Self> {
        Ok(Self {
            options,
            pool: ThreadPool::new(options.threads)?,
            weights: None,
            leaves: HashMap::new(),
            cache: TensorCache::default(),
            arena: Arc::new(Memory::zeroed(0)?),
            bound: Vec::new(),
            current: 0,
        })
    }

    fn bind_new(&mut self, plan: &Arc<Plan>) -> Result<Bound> {
        if self.arena.bytes() < plan.arena_bytes {
            // Kernels of other plans point into the old arena; they are bound again when their plan returns.
            self.bound.clear();
            self.arena = Arc::new(Memory::zeroed(0)?);
            self.arena = Arc::new(Memory::zeroed(plan.arena_bytes)?);
        }
        let mut memory = vec![self.arena.clone()];
        let mut operands: Vec<Option<Operand>> = Vec::with_capacity(plan.places.len());
        let fingerprints = plan.graph.value_fingerprints();
        for (index, node) in plan.graph.nodes().iter().enumerate() {
            let tensor = node.tensor_type();
            let operand = match plan.places[index] {
                Place::Arena(slot) => Some(self.arena.operand(slot.offset, tensor)?),
                Place::Part { of, offset } => {
                    operands[of].map(|whole| whole.part(offset, tensor)).transpose()?
                }
                Place::Leaf => {
                    let leaf = self.leaf(node)?;
                    memory.push(leaf.clone());
                    Some(leaf.operand(0, tensor)?)
                }
                Place::Cached => {
                    let value = materialize(self, &plan.graph, &fingerprints, index)?;
                    memory.push(value.clone());
                    Some(value.operand(0, tensor)?)
                }
                Place::Nowhere => None,
            };
            operands.push(operand);
        }
        let kernel = |&index: &usize| build(&plan.graph.nodes()[index], &plan.places, index, &operands);
        let mut bound = Bound {
            plan: plan.clone(),
            batches: vec![],
            operations: vec![],
            operands: vec![],
            _memory: memory,
        };
        for batch in &plan.batches {
            let kernels = batch.iter().map(kernel).collect::<Result<Vec<_>>>()?;
            let alone = |kernel: &Arc<dyn Kernel>| Arc::new(Batch::new(vec![kernel.clone()]));
            bound.operations.push(kernels.iter().map(alone).collect());
            bound.batches.push(Arc::new(Batch::new(kernels)));
        }
        bound.operands = operands;
        self.pool.reserve_scratch(bound.batches.iter().map(|batch| batch.scratch_bytes()).max().unwrap_or(0));
        Ok(bound)
    }

    /// Memory of a weight or state that operations read in place.
    pub(super) fn leaf(&mut self, node: &FrozenNode) -> Result<Arc<Memory>> {
        let tensor = node.tensor_type();
        let name = match &node.operation {
            Operation::Frozen(name) | Operation::State(name) => name.as_ref(),
            other => return Err(Error::internal(format!("{other:?} is not a leaf"))),
        };
        if let Some((known, memory)) = self.leaves.get(name) {
            if *known != tensor {
                return Err(Error::internal(format!("{name} is {known}, but a plan takes {tensor}")));
            }
            return Ok(memory.clone());
        }
        if matches!(node.operation, Operation::State(_)) {
            return Err(Error::internal(format!("the state {name} was never set")));
        }
        let memory = Arc::new(self.load(name, tensor)?);
        self.leaves.insert(name.to_owned(), (tensor, memory.clone()));
        Ok(memory)
    }

    /// Reads a frozen weight.
    pub(super) fn load(&self, name: &str, tensor: TensorType) -> Result<Memory> {
        let loader = self
            .weights
            .as_ref()
            .ok_or_else(|| Error::internal(format!("no one gives the weight {name}")))?;
        let value = loader(name, tensor)?.to_dtype(tensor.dtype);
        let memory = Memory::zeroed(tensor.bytes())?;
        memory.operand(0, tensor)?.write(value.bytes())?;
        Ok(memory)
    }

    fn current(&self) -> Result<&Bound> {
        self.bound.get(self.current).ok_or_else(|| Error::internal("no plan is bound"))
    }

    fn operand(&self, index: usize) -> Result<Operand> {
        let operand = self.current()?.operands.get(index).copied().flatten();
        operand.ok_or_else(|| Error::internal(format!("node %{index} has no memory")))
    }
}

/// The kernel of one operation of a plan.
fn build(
    node: &FrozenNode,
    places: &[Place],
    index: usize,
    operands: &[Option<Operand>],
) -> Result<Arc<dyn Kernel>> {
    let missing = || Error::internal(format!("node %{index} reads or writes a value without memory"));
    let inputs =
        node.inputs.iter().map(|&input| operands[input].ok_or_else(missing)).collect::<Result<Vec<_>>>()?;
    let whole = operands[index].ok_or_else(missing)?;
    let outputs =
        if matches!(places[index], Place::Part { .. }) { vec![whole] } else { split(&whole, node)? };
    Ok(Arc::from(kernels::build(&node.operation, &inputs, &outputs)?))
}

impl Device for CpuDevice {
    fn name(&self) -> String {
        "cpu".into()
    }

    fn target(&self) -> Arc<dyn Target + Send + Sync> {
        Arc::new(CpuTarget(self.options))
    }

    fn set_weights(&mut self, loader: Arc<WeightLoader>) {
        self.weights = Some(loader);
    }

    fn set_state(&mut self, name: &str, value: &HostTensor) -> Result<()> {
        let kept = self.leaves.get(name).filter(|(tensor, _)| *tensor == value.tensor);
        let memory = match kept {
            Some((_, memory)) => memory.clone(),
            None => {
                // Kernels that point to the old memory would miss the new value.
                self.bound.clear();
                Arc::new(Memory::zeroed(value.tensor.bytes())?)
            }
        };
        memory.operand(0, value.tensor)?.write(value.bytes())?;
        self.leaves.insert(name.to_owned(), (value.tensor, memory));
        Ok(())
    }

    fn state(&mut self, name: &str) -> Result<HostTensor> {
        let state = self
            .leaves
            .get(name)
            .ok_or_else(|| Error::internal(format!("the state {name} was never set")))?;
        Ok(HostTensor::from_bytes(state.0, &state.1.operand(0, state.0)?.read()))
    }

    fn bind(&mut self, plan: &Arc<Plan>) -> Result<()> {
        if let Some(position) = self.bound.iter().position(|bound| Arc::ptr_eq(&bound.plan, plan)) {
            self.current = position;
            return Ok(());
        }
        let bound = self.bind_new(plan)?;
        if self.bound.len() >= BOUND_PLANS {
            self.bound.remove(0);
        }
        self.bound.push(bound);
        self.current = self.bound.len() - 1;
        Ok(())
    }

    fn write_input(&mut self, index: usize, value: &HostTensor) -> Result<()> {
        self.operand(index)?.write(value.bytes())
    }

    fn run_batch(&mut self, batch: usize) -> Result<()> {
        self.pool.run(&self.current()?.batches[batch])
    }

    fn run_operation(&mut self, batch: usize, position: usize) -> Result<()> {
        self.pool.run(&self.current()?.operations[batch][position])
    }

    fn synchronize(&mut self) -> Result<()> {
        Ok(())
    }

    fn read(&mut self, index: usize) -> Result<HostTensor> {
        let operand = self.operand(index)?;
        Ok(HostTensor::from_bytes(operand.tensor, &operand.read()))
    }

    fn counters(&self) -> DeviceCounters {
        let (tensor_cache_hits, tensor_cache_misses) = self.cache.counts();
        let leaves: usize = self.leaves.values().map(|(_, memory)| memory.bytes()).sum();
        DeviceCounters {
            tensor_cache_hits,
            tensor_cache_misses,
            resident_bytes: leaves + self.cache.total(Memory::bytes),
            arena_bytes: self.arena.bytes(),
        }
    }
}
