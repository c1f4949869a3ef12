//! Weights as graph leaves: which are trained, which carry an adapter.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::adapter::{Adaptation, AdaptedLinear, TokenRows, token_rows_name};
use crate::graph::{ComputationGraph, DType, LazyTensor};

/// What a run trains.
#[derive(Debug, Clone)]
pub enum Trained {
    /// LoRA pairs, and weights that an adapter trains in full; everything else is frozen.
    Adapters(Adaptation),
    /// Every weight.
    All,
    /// Nothing: the model as it is.
    Nothing,
}

const HEAD: &str = "lm_head";
const HEAD_WEIGHT: &str = "lm_head.weight";
const TABLE_WEIGHT: &str = "model.embed_tokens.weight";

/// Gives the decoder its weights and notes which of them are trained.
pub struct Parameters<'a> {
    graph: Arc<ComputationGraph>,
    trained: &'a Trained,
    pub(super) dtype: DType,
    /// u32 [2], where dropout is on: training, and not evaluation.
    pub(super) dropout_seed: Option<LazyTensor>,
    /// Whether pairs are constants.
    settled: bool,
    met: Mutex<BTreeMap<String, LazyTensor>>,
}

impl<'a> Parameters<'a> {
    /// `dtype` is that of frozen weights and activations. Dropout applies where `dropout_seed` is given.
    pub fn new(
        graph: &Arc<ComputationGraph>,
        trained: &'a Trained,
        dtype: DType,
        dropout_seed: Option<LazyTensor>,
    ) -> Self {
        Self { graph: graph.clone(), trained, dtype, dropout_seed, settled: false, met: Mutex::default() }
    }

    /// Takes the values of pairs for constants, which nothing trains any more.
    pub fn settled(self) -> Self {
        Self { settled: true, ..self }
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
        if self.trains(name) {
            return self.state(name, dims).cast(self.dtype);
        }
        let weight = self.graph.frozen(name, dims, self.dtype);
        match self.trained_rows(name) {
            Some(rows) => self.with_rows(name, &weight, rows),
            None => weight,
        }
    }

    /// `table` [vocab, width] with the trained rows in the place of its own.
    #[track_caller]
    fn with_rows(&self, name: &str, table: &LazyTensor, rows: &TokenRows) -> LazyTensor {
        let vocab = table.dims()[0];
        let trained = self.pair_value(&token_rows_name(name), &[rows.ids.len(), rows.width]).cast(self.dtype);
        let mut order: Vec<(usize, usize)> = rows.ids.iter().copied().zip(0..).collect(); // row of the table, of `trained`
        order.sort_unstable();
        let mut parts = Vec::new();
        let (mut next, mut order) = (0, &order[..]);
        while let Some(&(id, position)) = order.first() {
            if id > next {
                parts.push(table.slice(0, next, id - next));
            }
            let neighbours = order.iter().zip(0..).take_while(|&(&row, at)| row == (id + at, position + at));
            let count = neighbours.count();
            parts.push(trained.slice(0, position, count));
            next = id + count;
            order = &order[count..];
        }
        if next < vocab {
            parts.push(table.slice(0, next, vocab - next));
        }
        let (first, rest) = (&parts[0], parts[1..].iter().collect::<Vec<_>>());
        if rest.is_empty() { first.clone() } else { first.concat(0, &rest) }
    }

    fn trained_rows(&self, name: &str) -> Option<&TokenRows> {
        match self.trained {
            Trained::Adapters(adaptation) => adaptation.tokens.get(name),
            Trained::All | Trained::Nothing => None,
        }
    }

    /// Rows of the token table at `path` [vocab, width] named by `ids`, with the low-rank part where it has an adapter.
    #[track_caller]
    pub fn embedding(&self, ids: &LazyTensor, path: &str, vocab: usize, width: usize) -> LazyTensor {
        let table = self.weight(&format!("{path}.weight"), &[vocab, width]);
        match self.adapter(path) {
            Some((_, adapted)) => self.adapted_embedding(ids, &table, adapted),
            None => table.embedding(ids),
        }
    }

    /// The output projection: its input and its weight [vocab, width], given the final hidden states `x` [n, hidden]. Both
    /// are wider than `hidden` where dropout keeps a pair from being part of the weight.
    ///
    /// Where the projection is the token table, an adapter that trains the table leaves the projection as it was, and one
    /// that trains the projection gives it values of its own: PEFT works on a copy.
    #[track_caller]
    pub fn head(&self, x: &LazyTensor, tied: bool, vocab: usize, hidden: usize) -> [LazyTensor; 2] {
        let apart = match self.trained {
            Trained::Adapters(_) => {
                self.trains(TABLE_WEIGHT)
                    || self.trains(HEAD_WEIGHT)
                    || self.trained_rows(HEAD_WEIGHT).is_some()
            }
            Trained::All | Trained::Nothing => false,
        };
        let weight = self.weight(if tied && !apart { TABLE_WEIGHT } else { HEAD_WEIGHT }, &[vocab, hidden]);
        let Some((position, adapted)) = self.adapter(HEAD) else { return [x.clone(), weight] };
        match self.dropped(x, position, adapted) {
            Some(dropped) => self.widened_projection(x, &dropped, &weight, adapted),
            None => [x.clone(), self.adapted_weight(&weight, adapted)],
        }
    }

    /// Whether the weight of this name is trained in full.
    pub(super) fn trains(&self, name: &str) -> bool {
        match self.trained {
            Trained::All => true,
            Trained::Adapters(adaptation) => adaptation.saved.contains_key(name),
            Trained::Nothing => false,
        }
    }

    /// `x weight^T (+ bias)`, with the low-rank part where the layer at `path` has an adapter.
    #[track_caller]
    pub fn linear(&self, x: &LazyTensor, path: &str, out: usize, inner: usize, bias: bool) -> LazyTensor {
        let weight = self.weight(&format!("{path}.weight"), &[out, inner]);
        let y = match self.adapter(path) {
            Some((position, adapted)) => self.adapted_linear(x, &weight, position, adapted),
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

    pub(super) fn adapter(&self, path: &str) -> Option<(usize, &AdaptedLinear)> {
        let Trained::Adapters(adaptation) = self.trained else { return None };
        let position = adaptation.pairs.keys().position(|at| at == path)?;
        adaptation.pairs.get(path).map(|adapted| (position, adapted))
    }

    /// A value of a pair, in the dtype that the optimizer keeps it in.
    pub(super) fn pair_value(&self, name: &str, dims: &[usize]) -> LazyTensor {
        if self.settled {
            return self.graph.frozen(name, dims, master(self.dtype));
        }
        self.state(name, dims)
    }

    /// A trained value, in the dtype that the optimizer keeps it in.
    fn state(&self, name: &str, dims: &[usize]) -> LazyTensor {
        let state = self.graph.state(name, dims, master(self.dtype));
        self.met.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), state.clone());
        state
    }
}

/// The dtype in which trained values and the optimizer's state are kept.
pub fn master(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}
