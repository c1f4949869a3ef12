//! From files to blocks.

use super::block::{Block, block_size};
use super::{StreamOptions, StreamPosition, files_hash};
use crate::data::dataset::{Dataset, DatasetCounts};
use crate::data::example::Example;
use crate::data::files::expand;
use crate::data::jsonl::{Line, LineReader};
use crate::data::loader::{LoaderState, order_options};
use crate::data::order::{EpochOrder, file_order};
use crate::data::stream::{ChunkEncoder, EncodedRow, content_hash, next_chunk, no_rows};
use crate::data::tokenizer::ChatTokenizer;
use crate::error::{Error, Result, ResultExt};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Cores that are left to the training once it has begun, of each one that tokenizes.
const CORES_FOR_ONE: usize = 4;

/// The part of an epoch that is done while there are rows left, at most: a packed file may be in a buffer to its end.
const ALMOST_ALL: f64 = 1.0 - 1e-6;

/// Where an example's row stands.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Index into the files as the configuration lists them.
    file: usize,
    /// Lines before it, and their bytes of text.
    line: usize,
    offset: u64,
    /// Which of the row's examples it is.
    example: usize,
    /// Bytes of the epoch's files before the row.
    bytes: u64,
}

/// Reads epoch after epoch.
pub(super) struct BlockReader {
    options: StreamOptions,
    stop: Arc<AtomicBool>,
    files: Vec<PathBuf>,
    /// In bytes, as they lie on disk.
    sizes: Vec<u64>,
    names: String,
    epoch: u64,
    /// Blocks of the epoch that are complete.
    block: u64,
    /// Files in the order of the epoch, and how many of them are read.
    order: Vec<usize>,
    read: usize,
    lines: Option<LineReader>,
    rows_of_file: usize,
    /// Examples of the next row that belong to a block before.
    passed_over: usize,
    /// Examples that have been read and are in no block yet.
    pending: VecDeque<(Example, Place)>,
    counts: DatasetCounts,
}

impl BlockReader {
    pub fn new(options: StreamOptions, stop: Arc<AtomicBool>) -> Result<Self> {
        let files = expand(&options.section.train)?;
        let size = |file: &PathBuf| file.metadata().map_or(0, |metadata| metadata.len());
        let mut reader = Self {
            sizes: files.iter().map(size).collect(),
            names: files_hash(&files),
            options,
            stop,
            files,
            epoch: 0,
            block: 0,
            order: Vec::new(),
            read: 0,
            lines: None,
            rows_of_file: 0,
            passed_over: 0,
            pending: VecDeque::new(),
            counts: DatasetCounts::default(),
        };
        reader.begin_epoch(0);
        Ok(reader)
    }

    fn begin_epoch(&mut self, epoch: u64) {
        let options = &self.options.loader;
        self.order = file_order(self.files.len(), options.shuffle, options.seed, epoch);
        (self.epoch, self.block, self.read, self.lines) = (epoch, 0, 0, None);
    }

    /// Goes to the block in which `state` was taken.
    pub fn continue_at(&mut self, state: &LoaderState) -> Result<()> {
        let changed = |what: &str| {
            Error::user(format!("cannot resume exactly: {what} changed since the checkpoint"))
                .hint("restore it, or start a new run from the checkpoint's adapter")
        };
        let position = state.stream.as_ref().ok_or_else(|| changed("data.streaming"))?;
        if position.shuffle_buffer != self.options.section.shuffle_buffer {
            return Err(changed("data.shuffle_buffer"));
        }
        if position.files != self.names {
            return Err(changed("the list of training files"));
        }
        self.begin_epoch(state.epoch);
        let place = self.order.iter().position(|&file| file == position.file);
        self.read = place.ok_or_else(|| Error::data("the checkpoint's data position is damaged"))?;
        self.block = position.block;
        let file = &self.files[position.file];
        let reader = LineReader::open_at(file, position.line, position.offset);
        self.lines = Some(reader.context(|| "while going back to where training stopped".to_owned())?);
        self.rows_of_file = 1;
        self.passed_over = position.example;
        Ok(())
    }

    /// Gives blocks to `send` until it takes no more, or the first error. The first block is tokenized on all cores.
    pub fn run(mut self, tokenizer: Option<&ChatTokenizer>, send: &mut dyn FnMut(Result<Block>) -> bool) {
        let mut encoder = ChunkEncoder::new(tokenizer, &self.options.section);
        let all = encoder.threads;
        loop {
            let block = self.next_block(&mut encoder);
            let failed = block.is_err();
            if !send(block) || failed {
                return;
            }
            encoder.threads = (all / CORES_FOR_ONE).max(1);
        }
    }

    fn next_block(&mut self, encoder: &mut ChunkEncoder<'_>) -> Result<Block> {
        let mut ended = false;
        loop {
            let lengths: Vec<usize> = self.pending.iter().map(|(example, _)| example.len()).collect();
            let buffer = self.options.section.shuffle_buffer;
            match block_size(&lengths, buffer, ended, &self.options.loader) {
                Some(0) if self.block == 0 => return Err(self.nothing_to_train_on()),
                Some(0) => {
                    self.begin_epoch(self.epoch + 1);
                    ended = false;
                }
                Some(count) => return Ok(self.take_block(count)),
                None => ended = !self.read_chunk(encoder)?,
            }
        }
    }

    /// The first `count` pending examples.
    fn take_block(&mut self, count: usize) -> Block {
        let (examples, places): (Vec<Example>, Vec<Place>) = self.pending.drain(..count).unzip();
        let total = self.sizes.iter().sum::<u64>().max(1) as f64;
        let part = |place: &Place| (place.bytes as f64 / total).min(ALMOST_ALL);
        let from = places.first().map_or(0.0, part);
        let to = self.pending.front().map_or(1.0, |(_, place)| part(place));
        let lengths: Vec<usize> = examples.iter().map(Example::len).collect();
        let dataset = Dataset { examples, ..Dataset::default() };
        let start = self.position(places.first());
        let mut state = LoaderState::first(&self.options.loader, &dataset);
        state.stream = Some(start.clone());
        let order = EpochOrder::new(&lengths, &order_options(&state), self.epoch);
        self.block += 1;
        let notices = self.notices();
        Block { epoch: self.epoch, start, dataset, order, part: from..to, notices }
    }

    fn position(&self, place: Option<&Place>) -> StreamPosition {
        let (file, line, offset, example) =
            place.map_or((0, 0, 0, 0), |place| (place.file, place.line, place.offset, place.example));
        StreamPosition {
            block: self.block,
            file,
            line,
            offset,
            example,
            shuffle_buffer: self.options.section.shuffle_buffer,
            files: self.names.clone(),
        }
    }

    /// What happened to rows, after 1, 2, 4, 8 ... blocks of what is the first epoch here.
    fn notices(&mut self) -> Vec<String> {
        let told = self.counts.notices();
        if !self.block.is_power_of_two() || told.is_empty() {
            return Vec::new();
        }
        vec![format!("of {} rows read so far: {}", self.counts.rows, told.join("; "))]
    }

    /// Reads and tokenizes the next lines of the epoch; `false` at its end.
    fn read_chunk(&mut self, encoder: &mut ChunkEncoder<'_>) -> Result<bool> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(super::stopped());
        }
        while self.read < self.order.len() {
            let file = self.order[self.read];
            let lines = match &mut self.lines {
                Some(lines) => lines,
                closed => {
                    self.rows_of_file = 0;
                    closed.insert(LineReader::open(&self.files[file])?)
                }
            };
            let chunk = next_chunk(lines)?;
            if !chunk.is_empty() {
                self.rows_of_file += chunk.len();
                self.add(file, chunk, encoder)?;
                return Ok(true);
            }
            if self.rows_of_file == 0 {
                return Err(no_rows(&self.files[file]));
            }
            self.read += 1;
            self.lines = None;
        }
        Ok(false)
    }

    fn add(&mut self, file: usize, chunk: Vec<Line>, encoder: &mut ChunkEncoder<'_>) -> Result<()> {
        let before: u64 = self.order[..self.read].iter().map(|&file| self.sizes[file]).sum();
        for (tokens, line) in encoder.encode(&chunk)?.into_iter().zip(chunk) {
            let content_hash = content_hash(&line.text);
            let passed_over = std::mem::take(&mut self.passed_over);
            if self.options.held_out.contains(&content_hash) {
                continue;
            }
            let mut row = EncodedRow { tokens: tokens?, source: line.source, content_hash };
            let fitted = self.counts.fit(&mut row, &self.options.section);
            let (line_before, bytes) = (row.source.row - 1, before + line.bytes_before);
            for (index, (input_ids, supervised)) in fitted.examples.into_iter().enumerate().skip(passed_over)
            {
                let example = Example { input_ids, supervised, source: row.source.clone(), content_hash };
                example.check_vocabulary(self.options.vocab_size)?;
                let place = Place { file, line: line_before, offset: line.offset, example: index, bytes };
                self.pending.push_back((example, place));
            }
        }
        Ok(())
    }

    fn nothing_to_train_on(&self) -> Error {
        let DatasetCounts { rows, dropped, unsupervised, .. } = self.counts;
        Error::data(format!(
            "nothing to train on: of {rows} rows, {dropped} are too long and {unsupervised} have no trained token"
        ))
        .hint("raise data.max_length, or check data.train_on and the roles of the messages")
    }
}
