//! Weights as graph leaves: which are trained, which carry an adapter.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::adapter::AdaptedLinear;
use crate::graph::{ComputationGraph, DType, LazyTensor, Operation, Scalar};

/// What a run trains.
#[derive(Debug, Clone)]
pub enum Trained {
    /// LoRA pairs on these linear layers, by path; everything else is frozen.
    Adapters(BTreeMap<String, AdaptedLinear>),
    /// Every weight.
    All,
    /// Nothing: the model as it is.
    Nothing,
}

/// Gives the decoder its weights and notes which of them are trained.
pub struct Parameters<'a> {
    graph: Arc<ComputationGraph>,
    trained: &'a Trained,
    dtype: DType,
    /// u32 [2], where dropout is on: training, and not evaluation.
    dropout_seed: Option<LazyTensor>,
    met: Mutex<BTreeMap<String, LazyTensor>>,
}

/// Name of the state that holds an adapter's A, [rank, in].
pub fn lora_a_name(path: &str) -> String {
    format!("{path}.lora_A.weight")
}

/// Name of the state that holds an adapter's B, [out, rank].
pub fn lora_b_name(path: &str) -> String {
    format!("{path}.lora_B.weight")
}

impl<'a> Parameters<'a> {
    /// `dtype` is that of frozen weights and activations. Dropout applies where `dropout_seed` is given.
    pub fn new(
        graph: &Arc<ComputationGraph>,
        trained: &'a Trained,
        dtype: DType,
        dropout_seed: Option<LazyTensor>,
    ) -> Self {
        Self { graph: graph.clone(), trained, dtype, dropout_seed, met: Mutex::default() }
    }

    pub fn graph(&self) -> &Arc<ComputationGraph> {
        &self.graph
    }

    /// Rotary angles keep full precision.
    pub fn angle_dtype(&self) -> DType {
        if self.dtype == DType::F64 { DType::F64 } else { DType::F32 }
    }

    /// A weight of the base model.
    #[track_caller]
    pub fn weight(&self, name: &str, dims: &[usize]) -> LazyTensor {
        match self.trained {
            Trained::All => self.state(name, dims, master(self.dtype)).cast(self.dtype),
            Trained::Adapters(_) | Trained::Nothing => self.graph.frozen(name, dims, self.dtype),
        }
    }

    /// `x weight^T (+ bias)`, with the low-rank part where the layer at `path` has an adapter.
    #[track_caller]
    pub fn linear(&self, x: &LazyTensor, path: &str, out: usize, inner: usize, bias: bool) -> LazyTensor {
        let weight = self.weight(&format!("{path}.weight"), &[out, inner]);
        let y = match self.adapter(path) {
            Some((position, adapted)) => self.adapted(x, &weight, position, adapted),
            None => x.linear(&weight),
        };
        if !bias {
            return y;
        }
        let bias = self.weight(&format!("{path}.bias"), &[out]);
        y.plus_bias(&bias)
    }

    /// The trained values that have been asked for, by name.
    pub fn trained(&self) -> Vec<(String, LazyTensor)> {
        let met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        met.iter().map(|(name, tensor)| (name.clone(), tensor.clone())).collect()
    }

    fn adapter(&self, path: &str) -> Option<(usize, &AdaptedLinear)> {
        let Trained::Adapters(adapters) = self.trained else { return None };
        adapters
            .iter()
            .enumerate()
            .find(|(_, (at, _))| *at == path)
            .map(|(position, (_, adapted))| (position, adapted))
    }

    fn adapted(
        &self,
        x: &LazyTensor,
        weight: &LazyTensor,
        position: usize,
        adapted: &AdaptedLinear,
    ) -> LazyTensor {
        let state =
            |name: String, dims: &[usize]| self.state(&name, dims, master(self.dtype)).cast(self.dtype);
        let a = state(lora_a_name(&adapted.path), &[adapted.rank, adapted.in_features]);
        let b = state(lora_b_name(&adapted.path), &[adapted.out_features, adapted.rank]);
        let dropped = match &self.dropout_seed {
            Some(seed) if adapted.dropout > 0.0 => {
                let mask = Operation::DropoutMask {
                    stream: u32::try_from(position).unwrap_or(u32::MAX),
                    probability: Scalar(adapted.dropout),
                    shape: x.shape(),
                    dtype: self.dtype,
                };
                x.times(&seed.then(mask, &[]))
            }
            _ => x.clone(),
        };
        x.lora_linear(weight, &dropped, &a, &b, adapted.scale)
    }

    fn state(&self, name: &str, dims: &[usize], dtype: DType) -> LazyTensor {
        let state = self.graph.state(name, dims, dtype);
        self.met.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), state.clone());
        state
    }
}

/// The dtype in which trained values and the optimizer's state are kept.
pub fn master(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}
