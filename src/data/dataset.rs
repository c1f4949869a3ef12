//! Tokenized data sets.

use super::example::{Example, RowSource};
use super::fit::FittedRow;
use super::row::RowKind;
use super::stream::{BadRow, EncodedRow, KindAndTokens, read_rows};
use super::tokenizer::ChatTokenizer;
use crate::config::{DataSection, WeightedSource};
use crate::error::{Error, Result};
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

/// What became of the rows of the files that were read. Rows are counted, not the examples that they became.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct DatasetCounts {
    /// Rows in the files.
    pub rows: usize,
    /// Rows of each kind, in the order of [`RowKind::ALL`].
    pub kinds: [usize; RowKind::ALL.len()],
    /// Rows cut to the maximum length.
    pub truncated: usize,
    /// Rows left out because they are longer than the maximum length, or in part where the template makes several
    /// examples of them.
    pub dropped: usize,
    /// Rows longer than the maximum length that became several examples.
    pub split: usize,
    /// Trained tokens that were cut off or dropped.
    pub lost_targets: usize,
    /// Rows left out because nothing in them is trained.
    pub unsupervised: usize,
    /// Conversations whose turns are trained in several examples, because the chat template rewrites earlier turns.
    pub rewritten: usize,
    /// Rows with the same text as a row before them.
    pub duplicates: usize,
    /// Duplicates that were left out.
    pub deduplicated: usize,
}

/// Takes rows as they are read: counts them and applies the section's rules.
#[derive(Debug, Default)]
pub(crate) struct RowFilter {
    pub counts: DatasetCounts,
    seen: HashSet<u64>,
}

impl RowFilter {
    /// The row within the length limit; `None` for a duplicate that is left out.
    pub fn accept(&mut self, row: &mut EncodedRow, section: &DataSection) -> Option<FittedRow> {
        if !self.seen.insert(row.content_hash) {
            self.counts.duplicates += 1;
            if section.deduplicate {
                self.counts.add(row.tokens.kind);
                self.counts.deduplicated += 1;
                return None;
            }
        }
        Some(self.counts.fit(row, section))
    }
}

impl DatasetCounts {
    fn add(&mut self, kind: RowKind) {
        self.rows += 1;
        self.kinds[kind as usize] += 1;
    }

    /// The row within the length limit, whether or not it is a duplicate.
    pub(crate) fn fit(&mut self, row: &mut EncodedRow, section: &DataSection) -> FittedRow {
        self.add(row.tokens.kind);
        let encoded = std::mem::take(&mut row.tokens.examples);
        self.rewritten += usize::from(encoded.len() > 1);
        let fitted = FittedRow::new(encoded, section.max_length, section.overlong);
        self.truncated += usize::from(fitted.truncated);
        self.dropped += usize::from(fitted.dropped);
        self.split += usize::from(fitted.split);
        self.lost_targets += fitted.lost_targets;
        self.unsupervised += usize::from(fitted.unsupervised());
        fitted
    }
}

/// Examples in the order of their files and rows; none is empty, overlong or without a trained token.
#[derive(Debug, Clone, Default)]
pub struct Dataset {
    pub(crate) examples: Vec<Example>,
    pub(crate) counts: DatasetCounts,
    /// Files and their weights; empty where every example is drawn once in an epoch.
    pub(crate) sources: Vec<WeightedSource>,
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
        let mut dataset = Self::default();
        let mut filter = RowFilter::default();
        let mut add = |row: std::result::Result<EncodedRow, BadRow>| {
            let mut row = row.map_err(|bad| bad.error)?;
            let fitted = filter.accept(&mut row, section).unwrap_or_default();
            dataset.extend(row, fitted);
            Ok(())
        };
        read_rows(files, tokenizer, section, &mut add, &mut |done| progress(done.rows))?;
        dataset.counts = filter.counts;
        dataset.check_not_empty()?;
        Ok(dataset)
    }

    /// Builds a data set from examples, applying the length limit of `section`.
    pub fn from_examples(examples: impl IntoIterator<Item = Example>, section: &DataSection) -> Self {
        let mut dataset = Self::default();
        let mut filter = RowFilter::default();
        for Example { input_ids, supervised, source, content_hash } in examples {
            let tokens = KindAndTokens { kind: RowKind::Tokenized, examples: vec![(input_ids, supervised)] };
            let mut row = EncodedRow { tokens, source, content_hash };
            let fitted = filter.accept(&mut row, section).unwrap_or_default();
            dataset.extend(row, fitted);
        }
        dataset.counts = filter.counts;
        dataset
    }

    pub(crate) fn extend(&mut self, row: EncodedRow, fitted: FittedRow) {
        let EncodedRow { source, content_hash, .. } = row;
        self.examples.extend(fitted.examples.into_iter().map(|(input_ids, supervised)| Example {
            input_ids,
            supervised,
            source: source.clone(),
            content_hash,
        }));
    }

    fn check_not_empty(&self) -> Result<()> {
        if !self.examples.is_empty() {
            return Ok(());
        }
        let DatasetCounts { rows, truncated, dropped, unsupervised, .. } = self.counts;
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
        self.examples.iter().try_for_each(|example| example.check_vocabulary(vocab_size))
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

    /// Tokens of all examples: those of one epoch where no source has a weight.
    pub fn tokens(&self) -> usize {
        self.examples.iter().map(Example::len).sum()
    }

    /// Tokens of all examples that contribute to the loss.
    pub fn supervised_tokens(&self) -> usize {
        self.examples.iter().map(Example::supervised_tokens).sum()
    }

    /// Changes whenever a row, its length, the order of rows or a weight changes.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = blake3::Hasher::new();
        for example in &self.examples {
            hasher.update(&example.content_hash.to_le_bytes());
            hasher.update(&(example.len() as u64).to_le_bytes());
        }
        for source in &self.sources {
            hasher.update(&source.weight.to_le_bytes());
            for file in &source.files {
                hasher.update(file.file_name().unwrap_or_default().as_encoded_bytes());
            }
        }
        first_bytes(&hasher.finalize())
    }

    /// The fingerprint in hexadecimal.
    pub(crate) fn fingerprint_text(&self) -> String {
        format!("{:016x}", self.fingerprint())
    }

    /// Rows that are also in `other`, each with one of the same text there, in order.
    pub fn shared_rows(&self, other: &Self) -> Vec<(&Example, RowSource)> {
        let mut theirs: HashMap<u64, &RowSource> = HashMap::new();
        for example in &other.examples {
            theirs.entry(example.content_hash).or_insert(&example.source);
        }
        let mut shared: Vec<(&Example, RowSource)> = self
            .examples
            .iter()
            .filter_map(|example| Some((example, (*theirs.get(&example.content_hash)?).clone())))
            .collect();
        shared.dedup_by(|left, right| left.0.source == right.0.source);
        shared
    }
}

/// The first eight bytes of a hash as a number.
pub(crate) fn first_bytes(hash: &blake3::Hash) -> u64 {
    hash.as_bytes().iter().take(8).fold(0, |value, &byte| value << 8 | u64::from(byte))
}
