//! Values and states as candle tensors.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{DType as CandleDType, Device as Hardware, Tensor};

use super::download::{download, download_all};
use super::operations::{self, Operands};
use crate::error::{Error, ErrorKind, Result};
use crate::executor::device::{Device, DeviceCounters, WeightLoader};
use crate::executor::host_tensor::{HostTensor, HostValues};
use crate::executor::tensor_cache::TensorCache;
use crate::graph::{DType, Operation, Shape, TensorType};
use crate::passes::{Pass, SIMPLIFY};
use crate::plan::{Place, Plan, Target};

/// A device behind candle.
pub struct CandleDevice {
    hardware: Hardware,
    weights: Option<Arc<WeightLoader>>,
    leaves: HashMap<String, Tensor>,
    cache: TensorCache<Tensor>,
    plan: Option<Arc<Plan>>,
    /// One per node of the bound plan, while it is alive.
    values: Vec<Option<Tensor>>,
    /// Inputs that masks are made from, which happens on the host.
    host_inputs: HashMap<usize, HostTensor>,
    /// Results of runs, which nothing overwrites: every run makes tensors of its own.
    kept: Vec<Vec<(Tensor, TensorType)>>,
}

/// Runs whose results are kept at most; each is a few numbers.
const KEPT_RUNS: usize = 1024;

/// Every fused operation is decomposed.
#[derive(Debug, Clone, Copy, Default)]
pub struct PlainTarget;

impl Target for PlainTarget {
    fn batch_size_hint(&self) -> usize {
        16
    }

    fn passes(&self) -> Vec<Pass> {
        vec![SIMPLIFY]
    }

    fn lacks_kernel(&self, operation: &Operation) -> bool {
        !operation.is_leaf()
    }
}

/// candle's errors, told apart from lazytune's own.
pub(super) fn failed(error: candle_core::Error) -> Error {
    Error::new(ErrorKind::Device, error.to_string())
}

impl CandleDevice {
    pub fn new(hardware: Hardware) -> Self {
        Self {
            hardware,
            weights: None,
            leaves: HashMap::new(),
            cache: TensorCache::default(),
            plan: None,
            values: Vec::new(),
            host_inputs: HashMap::new(),
            kept: Vec::new(),
        }
    }

    /// The first CUDA device.
    ///
    /// # Errors
    /// A device error if there is none, or this build has no CUDA.
    pub fn cuda() -> Result<Self> {
        Ok(Self::new(Hardware::new_cuda(0).map_err(failed)?))
    }

    fn plan(&self) -> Result<Arc<Plan>> {
        self.plan.clone().ok_or_else(|| Error::internal("no plan is bound"))
    }

    /// The value of a node; views are made from what they view.
    fn value(&self, plan: &Plan, index: usize) -> Result<Tensor> {
        if let Some(value) = &self.values[index] {
            return Ok(value.clone());
        }
        let node = &plan.graph.nodes()[index];
        match &node.operation {
            Operation::Reshape(shape) => {
                self.value(plan, node.inputs[0])?.reshape(shape.dims()).map_err(failed)
            }
            Operation::Detach => self.value(plan, node.inputs[0]),
            Operation::State(name) | Operation::Frozen(name) => self
                .leaves
                .get(name.as_ref())
                .cloned()
                .ok_or_else(|| Error::internal(format!("{name} was never set"))),
            operation if operation.updates_state() => self.value(plan, node.inputs[0]),
            other => Err(Error::internal(format!("{other:?} was read before it was computed"))),
        }
    }

    fn compute(&self, plan: &Plan, index: usize) -> Result<Tensor> {
        let node = &plan.graph.nodes()[index];
        let inputs = node.inputs.iter().map(|&input| self.value(plan, input)).collect::<Result<Vec<_>>>()?;
        let host: Vec<Option<&HostTensor>> =
            node.inputs.iter().map(|input| self.host_inputs.get(input)).collect();
        let operands = Operands { node, inputs: &inputs, host: &host, hardware: &self.hardware };
        operations::run(&operands)
    }

    fn run(&mut self, plan: &Plan, index: usize) -> Result<()> {
        let value = self.compute(plan, index)?;
        let node = &plan.graph.nodes()[index];
        if node.operation.updates_state() {
            let leaf = crate::plan::storage_of(&plan.graph, index);
            if let Operation::State(name) = &plan.graph.nodes()[leaf].operation {
                self.leaves.insert(name.to_string(), value);
            }
        } else {
            self.values[index] = Some(value);
        }
        Ok(())
    }

    /// Loads the frozen weights of a plan and computes its constants.
    fn prepare(&mut self, plan: &Plan) -> Result<()> {
        for node in plan.graph.nodes() {
            if let Operation::Frozen(name) = &node.operation
                && !self.leaves.contains_key(name.as_ref())
            {
                let loader =
                    self.weights.as_ref().ok_or_else(|| Error::internal("no one gives the weights"))?;
                let value = loader(name, node.tensor_type())?.to_dtype(node.tensor_type().dtype);
                self.leaves.insert(name.to_string(), upload(&value, &self.hardware)?);
            }
        }
        let fingerprints = plan.graph.value_fingerprints();
        for (index, fingerprint) in fingerprints.iter().enumerate() {
            // Values that no batch computes depend on weights and constants alone; the few that only lead to others are
            // computed too.
            let computed = matches!(plan.places[index], Place::Cached | Place::Nowhere);
            if computed && plan.graph.nodes()[index].operation.computes() {
                let cache = std::mem::take(&mut self.cache);
                let value = cache.get_or_compute(fingerprint, || Ok(Arc::new(self.compute(plan, index)?)));
                self.cache = cache;
                self.values[index] = Some(value?.as_ref().clone());
            }
        }
        Ok(())
    }
}

pub(super) fn candle_dtype(dtype: DType) -> CandleDType {
    match dtype {
        DType::F32 => CandleDType::F32,
        DType::F64 => CandleDType::F64,
        DType::Bf16 => CandleDType::BF16,
        DType::U32 => CandleDType::U32,
    }
}

pub(super) fn upload(value: &HostTensor, hardware: &Hardware) -> Result<Tensor> {
    let dims = value.tensor.shape.dims();
    let tensor = match &value.values {
        HostValues::F32(values) => Tensor::from_slice(values, dims, hardware),
        HostValues::F64(values) => Tensor::from_slice(values, dims, hardware),
        HostValues::Bf16(values) => Tensor::from_slice(values, dims, hardware),
        HostValues::U32(values) => Tensor::from_slice(values, dims, hardware),
    };
    tensor.map_err(failed)
}

impl Device for CandleDevice {
    fn name(&self) -> String {
        match self.hardware {
            Hardware::Cpu => "candle-cpu".into(),
            Hardware::Cuda(_) => "cuda".into(),
            Hardware::Metal(_) => "metal".into(),
        }
    }

    fn target(&self) -> Arc<dyn Target + Send + Sync> {
        Arc::new(PlainTarget)
    }

    fn set_weights(&mut self, loader: Arc<WeightLoader>) {
        self.weights = Some(loader);
    }

    fn set_state(&mut self, name: &str, value: &HostTensor) -> Result<()> {
        self.leaves.insert(name.to_owned(), upload(value, &self.hardware)?);
        Ok(())
    }

    fn state(&mut self, name: &str) -> Result<HostTensor> {
        let missing = || Error::internal(format!("the state {name} was never set"));
        let value = self.leaves.get(name).ok_or_else(missing)?;
        let dtype = match value.dtype() {
            CandleDType::F64 => DType::F64,
            CandleDType::BF16 => DType::Bf16,
            CandleDType::U32 => DType::U32,
            _ => DType::F32,
        };
        download(value, TensorType::new(Shape::new(value.dims())?, dtype))
    }

    fn bind(&mut self, plan: &Arc<Plan>) -> Result<()> {
        if self.plan.as_ref().is_some_and(|bound| Arc::ptr_eq(bound, plan)) {
            return Ok(());
        }
        self.values = vec![None; plan.graph.nodes().len()];
        self.host_inputs.clear();
        self.plan = Some(plan.clone());
        self.prepare(plan)
    }

    fn write_input(&mut self, index: usize, value: &HostTensor) -> Result<()> {
        self.values[index] = Some(upload(value, &self.hardware)?);
        if value.tensor.dtype == DType::U32 {
            self.host_inputs.insert(index, value.clone());
        }
        Ok(())
    }

    fn run_batch(&mut self, batch: usize) -> Result<()> {
        let plan = self.plan()?;
        for &index in &plan.batches[batch] {
            self.run(&plan, index)?;
        }
        for (value, place) in self.values.iter_mut().zip(&plan.places) {
            if matches!(place, Place::Arena(slot) if slot.last == batch && slot.first <= batch) {
                *value = None;
            }
        }
        Ok(())
    }

    fn run_operation(&mut self, batch: usize, position: usize) -> Result<()> {
        let plan = self.plan()?;
        self.run(&plan, plan.batches[batch][position])
    }

    fn synchronize(&mut self) -> Result<()> {
        self.hardware.synchronize().map_err(failed)
    }

    fn read(&mut self, index: usize) -> Result<HostTensor> {
        let plan = self.plan()?;
        download(&self.value(&plan, index)?, plan.graph.nodes()[index].tensor_type())
    }

    fn keeps(&self) -> usize {
        KEPT_RUNS
    }

    fn keep(&mut self, indices: &[usize]) -> Result<()> {
        let plan = self.plan()?;
        let value = |&index: &usize| Ok((self.value(&plan, index)?, plan.graph.nodes()[index].tensor_type()));
        let values = indices.iter().map(value).collect::<Result<_>>()?;
        self.kept.push(values);
        Ok(())
    }

    fn collect(&mut self) -> Result<Vec<Vec<HostTensor>>> {
        download_all(&std::mem::take(&mut self.kept))
    }

    fn counters(&self) -> DeviceCounters {
        let (tensor_cache_hits, tensor_cache_misses) = self.cache.counts();
        let bytes = |tensor: &Tensor| tensor.elem_count() * tensor.dtype().size_in_bytes();
        let leaves: usize = self.leaves.values().map(bytes).sum();
        let resident_bytes = leaves + self.cache.total(bytes);
        DeviceCounters { tensor_cache_hits, tensor_cache_misses, resident_bytes, arena_bytes: 0 }
    }
}
