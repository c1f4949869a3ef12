//! Tokenized data sets.

use super::encode::encode_row;
use super::example::Example;
use super::files::expand;
use super::jsonl::{Line, LineReader};
use super::row::Row;
use super::tokenizer::ChatTokenizer;
use crate::config::{DataSection, Overlong};
use crate::error::{Error, Result, ResultExt};
use std::path::PathBuf;
use std::thread;

/// Lines that are tokenized together; the bytes bound the memory of untokenized text.
const CHUNK_LINES: usize = 1024;
const CHUNK_BYTES: usize = 16_000_000;

/// What became of the rows of the files that were read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DatasetCounts {
    /// Rows in the files.
    pub rows: usize,
    /// Rows cut to the maximum length.
    pub truncated: usize,
    /// Rows left out because they are longer than the maximum length.
    pub dropped: usize,
    /// Rows left out because nothing in them is trained.
    pub unsupervised: usize,
}

/// Examples in the order of their files and rows; none is empty, overlong or without a trained token.
#[derive(Debug, Clone, Default)]
pub struct Dataset {
    pub(crate) examples: Vec<Example>,
    pub(crate) counts: DatasetCounts,
}

impl Dataset {
    /// Reads and tokenizes files (or globs) of rows, on all cores. `progress` is called with the number of rows so far.
    ///
    /// # Errors
    /// A file or row cannot be read or tokenized (with its file and line), or nothing is left to train on.
    pub fn load(
        files: &[PathBuf],
        tokenizer: Option<&ChatTokenizer>,
        section: &DataSection,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Self> {
        let files = expand(files)?;
        let mut dataset = Self::default();
        for file in &files {
            let rows_before = dataset.counts.rows;
            let mut lines = LineReader::open(file)?;
            loop {
                let chunk = next_chunk(&mut lines)?;
                if chunk.is_empty() {
                    break;
                }
                for example in encode_chunk(&chunk, tokenizer, section)? {
                    dataset.add(example, section);
                }
                progress(dataset.counts.rows);
            }
            if dataset.counts.rows == rows_before {
                return Err(Error::data(format!("{} has no rows", file.display()))
                    .hint("give a file with one JSON object per line"));
            }
        }
        dataset.check_not_empty()?;
        Ok(dataset)
    }

    /// Builds a data set from examples, applying the length limit of `section`.
    pub fn from_examples(examples: impl IntoIterator<Item = Example>, section: &DataSection) -> Self {
        let mut dataset = Self::default();
        for example in examples {
            dataset.add(example, section);
        }
        dataset
    }

    fn add(&mut self, mut example: Example, section: &DataSection) {
        self.counts.rows += 1;
        if example.len() > section.max_length {
            match section.overlong {
                Overlong::Drop => {
                    self.counts.dropped += 1;
                    return;
                }
                Overlong::Truncate => {
                    self.counts.truncated += 1;
                    example.input_ids.truncate(section.max_length);
                    example.supervised.truncate(section.max_length);
                }
            }
        }
        if example.supervised_tokens() == 0 {
            self.counts.unsupervised += 1;
            return;
        }
        example.input_ids.shrink_to_fit();
        example.supervised.shrink_to_fit();
        self.examples.push(example);
    }

    fn check_not_empty(&self) -> Result<()> {
        if !self.examples.is_empty() {
            return Ok(());
        }
        let DatasetCounts { rows, truncated, dropped, unsupervised } = self.counts;
        Err(Error::data(format!(
            "nothing to train on: of {rows} rows, {dropped} are too long and {unsupervised} have no trained token \
             ({truncated} rows were cut)"
        ))
        .hint("raise data.max_length, or check data.train_on and the roles of the messages"))
    }

    /// Checks that every token id has a row in the embedding.
    ///
    /// # Errors
    /// Names the first row with an id of `vocab_size` or more.
    pub fn check_vocabulary(&self, vocab_size: usize) -> Result<()> {
        for example in &self.examples {
            if let Some(&id) = example.input_ids.iter().find(|&&id| id as usize >= vocab_size) {
                return Err(Error::data(format!(
                    "{}: token id {id} does not exist in the model, whose vocabulary has {vocab_size} tokens",
                    example.source
                ))
                .hint("use the tokenizer that belongs to the model"));
            }
        }
        Ok(())
    }

    pub fn examples(&self) -> &[Example] {
        &self.examples
    }

    pub fn len(&self) -> usize {
        self.examples.len()
    }

    pub fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }

    /// What became of the rows of the files; both parts of a split keep the counts of the whole.
    pub fn counts(&self) -> DatasetCounts {
        self.counts
    }

    /// Tokens of one epoch.
    pub fn tokens(&self) -> usize {
        self.examples.iter().map(Example::len).sum()
    }

    /// Tokens of one epoch that contribute to the loss.
    pub fn supervised_tokens(&self) -> usize {
        self.examples.iter().map(Example::supervised_tokens).sum()
    }

    /// Changes whenever a row, its length or the order of rows changes.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = blake3::Hasher::new();
        for example in &self.examples {
            hasher.update(&example.content_hash.to_le_bytes());
            hasher.update(&(example.len() as u64).to_le_bytes());
        }
        first_bytes(&hasher.finalize())
    }
}

/// Hash of a row's text.
fn content_hash(text: &str) -> u64 {
    first_bytes(&blake3::hash(text.trim().as_bytes()))
}

fn first_bytes(hash: &blake3::Hash) -> u64 {
    hash.as_bytes().iter().take(8).fold(0, |value, &byte| value << 8 | u64::from(byte))
}

fn next_chunk(lines: &mut LineReader) -> Result<Vec<Line>> {
    let mut chunk = Vec::new();
    let mut bytes = 0;
    while chunk.len() < CHUNK_LINES && bytes < CHUNK_BYTES {
        let Some(line) = lines.next().transpose()? else { break };
        bytes += line.text.len();
        chunk.push(line);
    }
    Ok(chunk)
}

/// Tokenizes lines on all cores, in order; the error of the first bad line wins.
fn encode_chunk(
    chunk: &[Line],
    tokenizer: Option<&ChatTokenizer>,
    section: &DataSection,
) -> Result<Vec<Example>> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let encode_all = |lines: &[Line]| -> Result<Vec<Example>> {
        lines.iter().map(|line| encode_line(line, tokenizer, section)).collect()
    };
    let parts: Vec<Result<Vec<Example>>> = thread::scope(|scope| {
        let share = chunk.len().div_ceil(threads).max(1);
        let workers: Vec<_> =
            chunk.chunks(share).map(|lines| scope.spawn(move || encode_all(lines))).collect();
        let crashed = |_| Err(Error::internal("a tokenizing thread crashed"));
        workers.into_iter().map(|worker| worker.join().unwrap_or_else(crashed)).collect()
    });
    let mut examples = Vec::with_capacity(chunk.len());
    for part in parts {
        examples.extend(part?);
    }
    Ok(examples)
}

fn encode_line(line: &Line, tokenizer: Option<&ChatTokenizer>, section: &DataSection) -> Result<Example> {
    let fields = line.parse()?;
    let (input_ids, supervised) = Row::from_json(fields)
        .and_then(|row| encode_row(row, tokenizer, section.train_on))
        .context(|| line.source.to_string())?;
    Ok(Example { input_ids, supervised, source: line.source.clone(), content_hash: content_hash(&line.text) })
}
