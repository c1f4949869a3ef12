//! Rows that are trained on while the files are still being read.
//!
//! ```text
//! files in the epoch's order -> rows -> examples -> block -> order of the block -> windows
//! ```
//!
//! A block is what the shuffle buffer holds: the next `data.shuffle_buffer` examples of the files, or a few less, so that
//! they fill whole windows. Within it rows are shuffled, packed and sorted by length as those of a whole data set are
//! elsewhere; the next block is read and tokenized on a thread of its own meanwhile. Memory holds two blocks and a chunk
//! of lines, however large the files are.
//!
//! A block is decided by where it begins, so that a position in the stream is that place, the block's number, and the
//! windows of it that are done. Only where an epoch ends may a window have fewer sequences than the others. (Packing
//! that does not come out even is the other case: it is rare, as the block then ends with an earlier row.)

mod block;
mod held_out;
mod reader;

pub use held_out::HeldOut;

use super::loader::{LoaderOptions, LoaderState, Window, check_same, collate};
use super::tokenizer::ChatTokenizer;
use crate::config::DataSection;
use crate::error::{Error, Result};
use block::Block;
use reader::BlockReader;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};

/// Where a block begins, and in what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamPosition {
    /// Blocks of the epoch before it.
    pub block: u64,
    /// Index into the files as the configuration lists them.
    pub file: usize,
    /// Lines of the file before its first row.
    pub line: usize,
    /// The bytes of text that these lines have.
    pub offset: u64,
    /// Examples of that row that belong to the block before.
    pub example: usize,
    pub shuffle_buffer: usize,
    /// Hash of the files' names.
    pub files: String,
}

/// What a stream is made from.
#[derive(Debug, Clone)]
pub struct StreamOptions {
    /// Paths or globs; the rules for rows; the size of the shuffle buffer.
    pub section: DataSection,
    pub loader: LoaderOptions,
    /// Tokens of the model.
    pub vocab_size: usize,
    /// Hashes of rows that are not trained on.
    pub held_out: Arc<HashSet<u64>>,
}

/// Produces windows from files as they are read. Two loaders with the same files, options and state produce the same
/// windows, on any number of threads.
#[derive(Debug)]
pub struct StreamingLoader {
    options: LoaderOptions,
    block: Block,
    state: LoaderState,
    /// `None` once this is dropped.
    blocks: Option<Receiver<Result<Block>>>,
    worker: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

impl StreamingLoader {
    /// Starts reading, and waits for the first block: at the beginning, or where `state` was taken.
    ///
    /// # Errors
    /// The state belongs to other data or options, or a row of the first block cannot be read or tokenized.
    pub fn new(
        options: StreamOptions,
        tokenizer: Option<Arc<ChatTokenizer>>,
        state: Option<&LoaderState>,
    ) -> Result<Self> {
        options.loader.check()?;
        let loader = options.loader;
        let stop = Arc::new(AtomicBool::new(false));
        let mut reader = BlockReader::new(options, Arc::clone(&stop))?;
        if let Some(state) = state {
            reader.continue_at(state)?;
        }
        // The reader works one block ahead, and waits with it until it is asked for.
        let (sender, blocks) = sync_channel(0);
        let work = move || {
            reader.run(tokenizer.as_deref(), &mut |block| sender.send(block).is_ok());
        };
        let worker = thread::Builder::new()
            .name("data-reader".to_owned())
            .spawn(work)
            .map_err(|error| Error::internal(format!("cannot start the data reading thread: {error}")))?;
        let block = receive(&blocks)?;
        let mut first = LoaderState::first(&loader, &block.dataset);
        first.epoch = block.epoch;
        first.stream = Some(block.start.clone());
        if let Some(saved) = state {
            check_same(&first, saved)?;
            first.window = saved.window;
        }
        Ok(Self { options: loader, block, state: first, blocks: Some(blocks), worker: Some(worker), stop })
    }

    /// The position of the next window. After a block's last one it is still in that block.
    pub fn state(&self) -> &LoaderState {
        &self.state
    }

    /// About how many optimizer steps make an epoch, judged by the current block's part of the bytes of all files.
    pub fn windows_per_epoch(&self) -> usize {
        let (windows, part) = (self.block.order.windows(), self.block.part.end - self.block.part.start);
        // Packed files are read in pieces that may be larger than a block.
        if part <= f64::EPSILON { windows } else { (windows as f64 / part).round() as usize }
    }

    /// The micro-batches of the next optimizer step.
    ///
    /// # Errors
    /// A row cannot be read or tokenized, or has a token that the model does not know; later calls fail too.
    pub fn next_window(&mut self) -> Result<Window> {
        let mut notices = std::mem::take(&mut self.block.notices);
        if self.state.window >= self.block.order.windows() {
            let blocks = self.blocks.as_ref().ok_or_else(stopped)?;
            self.block = receive(blocks)?;
            self.state.epoch = self.block.epoch;
            self.state.window = 0;
            self.state.dataset = self.block.dataset.fingerprint_text();
            self.state.stream = Some(self.block.start.clone());
            notices.append(&mut self.block.notices);
        }
        let sequences = self.block.order.window(self.state.window);
        let batches = collate(&self.block.dataset, &sequences, &self.options);
        self.state.window += 1;
        let (part, done) = (&self.block.part, self.state.window as f64 / self.block.order.windows() as f64);
        let epoch = self.block.epoch as f64 + part.start + (part.end - part.start) * done;
        Ok(Window { notices, ..Window::new(batches, self.state.clone(), epoch) })
    }
}

fn receive(blocks: &Receiver<Result<Block>>) -> Result<Block> {
    blocks.recv().unwrap_or_else(|_| Err(stopped()))
}

fn stopped() -> Error {
    Error::internal("the data reading thread has stopped")
}

/// Stops the thread after the chunk of lines that it is working on.
impl Drop for StreamingLoader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.blocks = None;
        if let Some(worker) = self.worker.take() {
            // A crash of the thread has already been reported by `next_window`.
            let _ = worker.join();
        }
    }
}

/// Names the files that a stream is read from, in their order.
fn files_hash(files: &[PathBuf]) -> String {
    let mut hasher = blake3::Hasher::new();
    for file in files {
        hasher.update(file.file_name().unwrap_or_default().as_encoded_bytes());
        hasher.update(b"\n");
    }
    format!("{:016x}", super::dataset::first_bytes(&hasher.finalize()))
}
