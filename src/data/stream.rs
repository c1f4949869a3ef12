//! Rows of files as tokens, one chunk of lines after the other, in their order and on all cores.

use super::cache::TokenCache;
use super::encode::{SupervisedTokens, encode_row};
use super::example::RowSource;
use super::files::expand;
use super::jsonl::{Line, LineReader};
use super::row::{Row, RowKind};
use super::tokenizer::ChatTokenizer;
use crate::config::{DataSection, TrainOn};
use crate::error::{Error, Result, ResultExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Lines that are tokenized together; the bytes bound the memory of untokenized text.
const CHUNK_LINES: usize = 1024;
const CHUNK_BYTES: usize = 16_000_000;
/// Lines that a thread takes at a time.
const SHARE_LINES: usize = 16;

/// A row as tokens, whatever its length.
#[derive(Debug)]
pub(crate) struct EncodedRow {
    pub tokens: KindAndTokens,
    pub source: RowSource,
    /// Hash of the row's text.
    pub content_hash: u64,
}

/// What a row's text alone decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KindAndTokens {
    pub kind: RowKind,
    /// Several where the chat template rewrites earlier turns.
    pub examples: Vec<SupervisedTokens>,
}

/// A row, or a part of a file, that cannot be used.
#[derive(Debug)]
pub(crate) struct BadRow {
    /// Where a file ends too early, the last row before.
    pub source: RowSource,
    pub error: Error,
}

/// How far reading has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadingProgress {
    pub rows: usize,
    /// Bytes of the files, before unpacking.
    pub bytes: u64,
    /// Of all files together.
    pub total_bytes: u64,
}

/// Calls `visit` with every row of the files (or globs), in order, or with why it cannot be read or tokenized (with its
/// file and line). Memory holds one chunk of lines and its tokens.
///
/// # Errors
/// A file cannot be opened or has no rows; and errors of `visit`.
pub(crate) fn read_rows(
    files: &[PathBuf],
    tokenizer: Option<&ChatTokenizer>,
    section: &DataSection,
    visit: &mut dyn FnMut(std::result::Result<EncodedRow, BadRow>) -> Result<()>,
    progress: &mut dyn FnMut(ReadingProgress),
) -> Result<()> {
    let files = expand(files)?;
    let sizes: Vec<u64> =
        files.iter().map(|file| file.metadata().map_or(0, |metadata| metadata.len())).collect();
    let mut done = ReadingProgress { total_bytes: sizes.iter().sum(), ..ReadingProgress::default() };
    let mut encoder = ChunkEncoder::new(tokenizer, section);
    for (file, size) in files.iter().zip(sizes) {
        let (rows_before, bytes_before) = (done.rows, done.bytes);
        let mut lines = LineReader::open(file)?;
        loop {
            let chunk = match next_chunk(&mut lines) {
                Ok(chunk) => chunk,
                Err(error) => {
                    done.rows += 1;
                    visit(Err(BadRow { source: lines.place(), error }))?;
                    continue;
                }
            };
            if chunk.is_empty() {
                break;
            }
            for (tokens, line) in encoder.encode(&chunk)?.into_iter().zip(chunk) {
                done.rows += 1;
                let (content_hash, source) = (content_hash(&line.text), line.source);
                visit(match tokens {
                    Ok(tokens) => Ok(EncodedRow { tokens, content_hash, source }),
                    Err(error) => Err(BadRow { source, error }),
                })?;
            }
            done.bytes = bytes_before + lines.bytes_read().min(size);
            progress(done);
        }
        if done.rows == rows_before {
            return Err(no_rows(file));
        }
    }
    Ok(())
}

pub(crate) fn no_rows(file: &Path) -> Error {
    Error::data(format!("{} has no rows", file.display())).hint("give a file with one JSON object per line")
}

/// Hash of a row's text.
pub(crate) fn content_hash(text: &str) -> u64 {
    super::dataset::first_bytes(&blake3::hash(text.trim().as_bytes()))
}

/// The next lines; none at the end of the file.
///
/// # Errors
/// The next line cannot be read; the lines after it may follow.
pub(crate) fn next_chunk(lines: &mut LineReader) -> Result<Vec<Line>> {
    let mut chunk = Vec::new();
    let mut bytes = 0;
    while chunk.len() < CHUNK_LINES && bytes < CHUNK_BYTES {
        match lines.next() {
            Some(Ok(line)) => {
                bytes += line.text.len();
                chunk.push(line);
            }
            Some(Err(error)) if chunk.is_empty() => return Err(error),
            Some(Err(error)) => {
                lines.put_back(error);
                break;
            }
            None => break,
        }
    }
    Ok(chunk)
}

/// Turns chunks of lines into tokens.
pub(crate) struct ChunkEncoder<'a> {
    tokenizer: Option<&'a ChatTokenizer>,
    train_on: TrainOn,
    cache: Option<TokenCache>,
    /// That tokenize at the same time.
    pub threads: usize,
}

impl<'a> ChunkEncoder<'a> {
    /// Uses all cores.
    pub fn new(tokenizer: Option<&'a ChatTokenizer>, section: &DataSection) -> Self {
        let cache = tokenizer.filter(|_| section.cache).and_then(|tokenizer| {
            TokenCache::open(section.cache_dir.as_deref(), tokenizer, section.train_on)
        });
        let threads = thread::available_parallelism().map_or(1, usize::from);
        Self { tokenizer, train_on: section.train_on, cache, threads }
    }

    /// The tokens of each line, in order, or why it has none, with its file and line.
    ///
    /// # Errors
    /// A thread crashed.
    pub fn encode(&mut self, chunk: &[Line]) -> Result<Vec<Result<KindAndTokens>>> {
        let key = self.cache.as_ref().and_then(|cache| cache.key(chunk));
        if let (Some(cache), Some(key)) = (&self.cache, &key)
            && let Some(rows) = cache.get(key, chunk.len())
        {
            return Ok(rows.into_iter().map(Ok).collect());
        }
        let rows = self.tokenize(chunk)?;
        if let (Some(cache), Some(key)) = (&mut self.cache, &key) {
            cache.put(key, &rows);
        }
        Ok(rows)
    }

    /// Tokenizes lines side by side.
    fn tokenize(&self, chunk: &[Line]) -> Result<Vec<Result<KindAndTokens>>> {
        let shares: Vec<&[Line]> = chunk.chunks(SHARE_LINES).collect();
        let next = AtomicUsize::new(0);
        let work = || {
            let mut done = Vec::new();
            while let Some(index) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&i| i < shares.len()) {
                let rows: Vec<_> = shares[index].iter().map(|line| self.encode_line(line)).collect();
                done.push((index, rows));
            }
            done
        };
        let mut parts = thread::scope(|scope| {
            let workers: Vec<_> = (0..self.threads.min(shares.len())).map(|_| scope.spawn(work)).collect();
            let crashed = |_| Err(Error::internal("a tokenizing thread crashed"));
            let joined = workers.into_iter().map(|worker| worker.join().or_else(crashed));
            joined.collect::<Result<Vec<_>>>()
        })?
        .into_iter()
        .flatten()
        .collect::<Vec<_>>();
        parts.sort_unstable_by_key(|(index, _)| *index);
        Ok(parts.into_iter().flat_map(|(_, rows)| rows).collect())
    }

    fn encode_line(&self, line: &Line) -> Result<KindAndTokens> {
        let fields = line.parse()?;
        Row::from_json(fields)
            .and_then(|(kind, row)| {
                Ok(KindAndTokens { kind, examples: encode_row(row, self.tokenizer, self.train_on)? })
            })
            .context(|| line.source.to_string())
    }
}
