//! The frozen prefix: layers below the lowest trained one, whose result for a row is the same in every epoch.
//!
//! A row's hidden states at the end of the prefix depend on the row's tokens alone. They are computed when a row is met
//! first, kept within a bound, and given to the step as an input from then on, so that the prefix is skipped.
//!
//! On the CPU this changes no bit of a run. Attention is causal and stays within a row, and kernels split outputs, never
//! sums, so that neither the other rows of a batch nor padding show in a row's result. Padded positions have no loss:
//! whatever finite values stand there reach no gradient. Dropout acts only on the inputs of adapted layers, which are
//! all above the prefix; its masks depend on the step and the place in the batch, and are drawn as before. Nothing
//! random lies below, so dropout never makes the cache wrong. Where every weight is trained, there is no prefix.

mod choice;
mod disk;
mod graph;
mod memory;
mod rows;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::data::Batch;
use crate::executor::HostTensor;

pub use choice::choose;
pub use disk::DiskRows;
pub use graph::{PREFIX_HIDDEN, Source};
pub use memory::MemoryRows;
pub use rows::{PrefixRows, RowKey};

/// A row's hidden states without its padding, as bytes of [tokens, hidden].
pub type Hidden = Arc<[u8]>;

/// What became of a row that was to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    Yes,
    /// There is no room for it.
    Full,
    /// The disk refuses, for this reason.
    Failed(String),
}

/// Where rows are kept.
#[derive(Debug)]
pub enum Store {
    Memory(MemoryRows),
    Disk(DiskRows),
}

/// Counts since the run started, and what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PrefixCounts {
    /// Rows that were found.
    pub hits: u64,
    /// Rows that were not, and had to be computed.
    pub misses: u64,
    /// Rows kept.
    pub rows: usize,
    pub bytes: u64,
    /// Most bytes that may be kept.
    pub limit: u64,
}

/// The prefix of a run, and the rows known so far.
#[derive(Debug)]
pub struct FrozenPrefix {
    /// How many layers it has, counted from layer 0.
    pub layers: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    store: Store,
    hits: u64,
    misses: u64,
    /// No more rows are taken, and the user knows.
    closed: bool,
}

impl FrozenPrefix {
    pub fn new(layers: usize, store: Store) -> Self {
        Self { layers, state: Mutex::new(State { store, hits: 0, misses: 0, closed: false }) }
    }

    /// Where the steps of this run begin.
    pub fn source(&self) -> Source {
        Source::Layer(self.layers)
    }

    /// The rows of a batch, with the hidden states of those that are known. A token's take `token_bytes`.
    pub fn look_up(&self, batch: &Batch, token_bytes: usize) -> PrefixRows {
        let mut state = self.state();
        let mut rows = PrefixRows::of(batch, token_bytes);
        for row in &mut rows.rows {
            row.hidden = state.store.get(&row.key, row.tokens * token_bytes);
            if row.hidden.is_some() { state.hits += 1 } else { state.misses += 1 }
        }
        rows
    }

    /// Takes the hidden states that were computed for [`PrefixRows::missing`] into `rows`, and keeps them for later
    /// batches. Returns what the user should know, once.
    pub fn keep(&self, rows: &mut PrefixRows, computed: &HostTensor) -> Option<String> {
        let mut notice = None;
        let mut state = self.state();
        for (key, hidden) in rows.fill(computed.bytes()) {
            if state.closed {
                break;
            }
            let counts = state.store.counts();
            notice = match state.store.insert(key, &hidden) {
                Kept::Yes => continue,
                Kept::Full => Some(format!(
                    "the frozen prefix cache is full with {} rows in {} MiB: the others are computed in every epoch; \
                     train.frozen_prefix_cache sets its size",
                    counts.0,
                    counts.1 >> 20
                )),
                Kept::Failed(reason) => {
                    Some(format!("the frozen prefix cache keeps no more than {} rows: {reason}", counts.0))
                }
            };
            state.closed = true;
        }
        notice
    }

    pub fn counts(&self) -> PrefixCounts {
        let state = self.state();
        let (rows, bytes, limit) = state.store.counts();
        PrefixCounts { hits: state.hits, misses: state.misses, rows, bytes, limit }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    fn get(&mut self, key: &RowKey, bytes: usize) -> Option<Hidden> {
        match self {
            Self::Memory(rows) => rows.get(key, bytes),
            Self::Disk(rows) => rows.get(key, bytes),
        }
    }

    fn insert(&mut self, key: RowKey, hidden: &Hidden) -> Kept {
        match self {
            Self::Memory(rows) => rows.insert(key, hidden),
            Self::Disk(rows) => rows.insert(key, hidden),
        }
    }

    /// Rows, their bytes, and most bytes.
    fn counts(&self) -> (usize, u64, u64) {
        match self {
            Self::Memory(rows) => rows.counts(),
            Self::Disk(rows) => rows.counts(),
        }
    }
}
