//! Batches for each optimizer step, without end, resumable at every step.

use super::batch::Batch;
use super::dataset::Dataset;
use super::example::Example;
use super::mixture::Mixture;
use super::order::{EpochOrder, OrderOptions};
use super::streaming::StreamPosition;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How rows are grouped into batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoaderOptions {
    /// Sequences in a micro-batch.
    pub batch_size: usize,
    /// Micro-batches in an optimizer step.
    pub gradient_accumulation_steps: usize,
    pub shuffle: bool,
    pub packing: bool,
    pub seed: u64,
    /// Longest sequence, in tokens.
    pub max_length: usize,
}

impl LoaderOptions {
    /// Sequences in an optimizer step.
    pub(crate) fn sequences_per_window(&self) -> usize {
        self.batch_size.saturating_mul(self.gradient_accumulation_steps)
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.sequences_per_window() == 0 || self.max_length == 0 {
            let message = "batch_size, gradient_accumulation_steps and max_length must be at least 1";
            return Err(Error::user(message));
        }
        Ok(())
    }
}

/// A position in the endless stream of windows, and what it is a position in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoaderState {
    /// Epochs that are complete.
    pub epoch: u64,
    /// Windows of the current epoch that are consumed.
    pub window: usize,
    pub seed: u64,
    /// Sequences in a window, over all micro-batches.
    pub sequences_per_window: usize,
    pub shuffle: bool,
    pub packing: bool,
    pub max_length: usize,
    /// [`Dataset::fingerprint`] in hexadecimal, of the block where rows are streamed.
    pub dataset: String,
    /// Where rows are streamed: the block that `window` counts in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamPosition>,
}

impl LoaderState {
    /// The first window of the first epoch.
    pub(crate) fn first(options: &LoaderOptions, dataset: &Dataset) -> Self {
        Self {
            epoch: 0,
            window: 0,
            seed: options.seed,
            sequences_per_window: options.sequences_per_window(),
            shuffle: options.shuffle,
            packing: options.packing,
            max_length: options.max_length,
            dataset: dataset.fingerprint_text(),
            stream: None,
        }
    }
}

/// The micro-batches of one optimizer step.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// At least one; each has at most `batch_size` rows.
    pub batches: Vec<Batch>,
    /// Continues after this window.
    pub state_after: LoaderState,
    /// Epochs done after this window, with a fraction.
    pub epoch: f64,
    /// Positions with a target, over all batches.
    pub supervised_tokens: usize,
    /// Positions that are not padding, over all batches.
    pub tokens: usize,
    /// What happened to rows that were read since the window before.
    pub notices: Vec<String>,
}

impl Window {
    pub(crate) fn new(batches: Vec<Batch>, state_after: LoaderState, epoch: f64) -> Self {
        Self {
            supervised_tokens: batches.iter().map(|batch| batch.supervised_tokens).sum(),
            tokens: batches.iter().map(|batch| batch.tokens).sum(),
            batches,
            state_after,
            epoch,
            notices: Vec::new(),
        }
    }
}

/// Produces windows. Two loaders with the same data, options and state produce the same windows; splitting
/// `batch_size * gradient_accumulation_steps` differently moves no row to another window.
#[derive(Debug)]
pub struct Loader {
    dataset: Arc<Dataset>,
    options: LoaderOptions,
    state: LoaderState,
    lengths: Vec<usize>,
    /// Where sources have weights.
    mixture: Option<Mixture>,
    /// Order of the epoch in `state`.
    order: EpochOrder,
    windows_per_epoch: usize,
}

impl Loader {
    /// Starts at the first window of the first epoch.
    ///
    /// # Errors
    /// The data set is empty, a row is longer than `max_length`, or a size is zero.
    pub fn new(dataset: Arc<Dataset>, options: LoaderOptions) -> Result<Self> {
        options.check()?;
        if dataset.is_empty() {
            return Err(Error::data("the data set is empty"));
        }
        let lengths: Vec<usize> = dataset.examples().iter().map(Example::len).collect();
        if let Some(long) = dataset.examples().iter().find(|example| example.len() > options.max_length) {
            return Err(Error::internal(format!("{}: row is longer than max_length", long.source)));
        }
        if u32::try_from(lengths.len()).is_err() {
            return Err(Error::data(format!("{} rows are more than 4 billion", lengths.len())));
        }
        let state = LoaderState::first(&options, &dataset);
        let files = dataset.examples().iter().map(|example| &*example.source.file);
        let mixture = Mixture::new(files, &dataset.sources, options.seed);
        let order = epoch_order(&lengths, mixture.as_ref(), &state);
        let windows_per_epoch = order.windows();
        Ok(Self { dataset, options, state, lengths, mixture, order, windows_per_epoch })
    }

    /// Continues where `state` was taken.
    ///
    /// # Errors
    /// The state belongs to other data or options; also as [`Loader::new`].
    pub fn from_state(dataset: Arc<Dataset>, options: LoaderOptions, state: LoaderState) -> Result<Self> {
        let mut loader = Self::new(dataset, options)?;
        check_same(&loader.state, &state)?;
        if state.epoch != loader.state.epoch {
            loader.order = epoch_order(&loader.lengths, loader.mixture.as_ref(), &state);
        }
        if state.window >= loader.order.windows() {
            return Err(Error::data(format!(
                "the saved position is window {} of {}",
                state.window,
                loader.order.windows()
            )));
        }
        loader.state = state;
        Ok(loader)
    }

    /// Optimizer steps in an epoch: the same in every epoch, but where weighted sources are packed. Other rows then fill
    /// other numbers of sequences, and this is the first epoch's.
    pub fn windows_per_epoch(&self) -> usize {
        self.windows_per_epoch
    }

    /// The rows.
    pub fn dataset(&self) -> Arc<Dataset> {
        self.dataset.clone()
    }

    /// Tokens of the longest sequence that a batch may hold.
    pub fn longest(&self) -> usize {
        let rows = self.lengths.iter().copied().max().unwrap_or(0);
        if self.options.packing { self.options.max_length } else { rows }
    }

    /// The position of the next window.
    pub fn state(&self) -> &LoaderState {
        &self.state
    }

    /// The micro-batches of the next optimizer step.
    ///
    /// # Errors
    /// The source of the rows fails; rows in memory never do.
    pub fn next_window(&mut self) -> Result<Window> {
        let sequences = self.order.window(self.state.window);
        let batches = collate(&self.dataset, &sequences, &self.options);
        let per_epoch = self.order.windows();
        self.state.window += 1;
        let epoch = self.state.epoch as f64 + self.state.window as f64 / per_epoch as f64;
        if self.state.window == per_epoch {
            self.state.epoch += 1;
            self.state.window = 0;
            if self.options.shuffle || self.mixture.is_some() {
                self.order = epoch_order(&self.lengths, self.mixture.as_ref(), &self.state);
            }
        }
        Ok(Window::new(batches, self.state.clone(), epoch))
    }
}

/// The micro-batches of a window of sequences of rows.
pub(crate) fn collate(dataset: &Dataset, sequences: &[&[u32]], options: &LoaderOptions) -> Vec<Batch> {
    let rows = |rows: &&[u32]| -> Vec<&Example> {
        rows.iter().filter_map(|&row| dataset.examples().get(row as usize)).collect()
    };
    let batch = |sequences: &[&[u32]]| {
        Batch::collate(&sequences.iter().map(rows).collect::<Vec<_>>(), options.max_length)
    };
    sequences.chunks(options.batch_size).map(batch).collect()
}

/// Every row once, for evaluation: shortest first, so that little is padded.
pub fn evaluation_batches(
    dataset: &Dataset,
    batch_size: usize,
    max_length: usize,
) -> impl ExactSizeIterator<Item = Batch> + '_ {
    let mut examples: Vec<&Example> = dataset.examples().iter().collect();
    examples.sort_by_key(|example| example.len());
    let sequences: Vec<Vec<Vec<&Example>>> = examples
        .chunks(batch_size.max(1))
        .map(|examples| examples.iter().map(|&example| vec![example]).collect())
        .collect();
    sequences.into_iter().map(move |sequences| Batch::collate(&sequences, max_length))
}

fn epoch_order(lengths: &[usize], mixture: Option<&Mixture>, state: &LoaderState) -> EpochOrder {
    let options = order_options(state);
    match mixture {
        None => EpochOrder::new(lengths, &options, state.epoch),
        Some(mixture) => EpochOrder::of_rows(mixture.draw(state.epoch), lengths, &options, state.epoch),
    }
}

pub(crate) fn order_options(state: &LoaderState) -> OrderOptions {
    OrderOptions {
        window: state.sequences_per_window,
        shuffle: state.shuffle,
        packing: state.packing,
        seed: state.seed,
        max_length: state.max_length,
        block: state.stream.as_ref().map_or(0, |position| position.block),
    }
}

pub(crate) fn check_same(now: &LoaderState, saved: &LoaderState) -> Result<()> {
    let differences = [
        ("train.seed", now.seed == saved.seed),
        (
            "train.batch_size * train.gradient_accumulation_steps",
            now.sequences_per_window == saved.sequences_per_window,
        ),
        ("data.shuffle", now.shuffle == saved.shuffle),
        ("data.packing", now.packing == saved.packing),
        ("data.max_length", now.max_length == saved.max_length),
        ("data.streaming", now.stream.is_some() == saved.stream.is_some()),
        ("the training data", now.dataset == saved.dataset),
    ];
    match differences.iter().find(|(_, same)| !same) {
        None => Ok(()),
        Some((what, _)) => {
            Err(Error::user(format!("cannot resume exactly: {what} changed since the checkpoint"))
                .hint("restore it, or start a new run from the checkpoint's adapter"))
        }
    }
}
