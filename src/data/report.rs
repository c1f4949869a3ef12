//! What a configuration's data holds, measured in one pass that keeps a few numbers of each example.

use super::batch::bucket_length;
use super::dataset::{DatasetCounts, RowFilter};
use super::fit::FittedRow;
use super::mixture::Mixture;
use super::notices::leak_words;
use super::packing::packed_sequences;
use super::preview::PreviewedRow;
use super::split::{hash_limit, validation_threshold};
use super::stream::{BadRow, EncodedRow, ReadingProgress, read_rows};
use super::tokenizer::ChatTokenizer;
use crate::config::{DataSection, Validation};
use crate::error::{Error, Result, ResultExt};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Rows that cannot be used and are named.
const NAMED_BAD: usize = 20;
/// Leaks named as examples.
const NAMED_LEAKS: usize = 3;

/// Everything that `lazytune data` says, but the rows themselves.
#[derive(Debug, Serialize)]
pub struct DataReport {
    /// What became of the rows of the training files; of those held out of them, too.
    pub counts: DatasetCounts,
    /// The same of the validation files, where there are any.
    pub validation_counts: Option<DatasetCounts>,
    pub train: PartReport,
    pub validation: Option<PartReport>,
    /// Examples of the training files by length before the limit: the longest length of each bar, and how many.
    pub lengths: Vec<(usize, usize)>,
    /// Validation rows that are also trained on.
    pub leaks: usize,
    /// A warning that names some of them.
    pub leak_warning: Option<String>,
    /// Rows of all files that cannot be read or tokenized, and are in none of the other numbers.
    pub bad: usize,
    /// The first of them.
    pub bad_rows: Vec<UnusableRow>,
}

/// A row that cannot be used.
#[derive(Debug, Serialize)]
pub struct UnusableRow {
    pub file: PathBuf,
    /// Line in the file; where the file ends too early, the last one before.
    pub row: usize,
    /// What is wrong, with the place.
    pub problem: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The same as an error.
    #[serde(skip)]
    pub error: Error,
}

/// One side of the split.
#[derive(Debug, Default, Serialize)]
pub struct PartReport {
    pub rows: usize,
    pub examples: usize,
    pub tokens: usize,
    /// Tokens that are predicted.
    pub supervised_tokens: usize,
    /// Examples and tokens of the first epoch, where weights draw some rows several times or not at all.
    pub epoch_examples: usize,
    pub epoch_tokens: usize,
    pub shortest: usize,
    pub median: usize,
    pub longest: usize,
    /// Sequences of `max_length` tokens that packing makes of one epoch, and the share of them that is not padding.
    pub packed_sequences: usize,
    pub packing_efficiency: f64,
}

/// What is kept of an example, 24 bytes.
#[derive(Debug, Clone, Copy)]
struct Facts {
    content_hash: u64,
    length: u32,
    supervised: u32,
    /// Index into the files.
    file: u32,
    line: u32,
}

/// The examples of some files.
#[derive(Default)]
struct Measured {
    filter: RowFilter,
    facts: Vec<Facts>,
    files: Vec<Arc<Path>>,
    /// Length before the limit -> examples.
    lengths: BTreeMap<usize, usize>,
    bad: usize,
    bad_rows: Vec<UnusableRow>,
}

/// Reads everything that the section names, past rows that cannot be used. The first `previewed` rows of the training
/// files go to `preview`.
///
/// # Errors
/// A file cannot be opened or has no rows; and errors of `preview`.
pub fn measure(
    section: &DataSection,
    tokenizer: Option<&ChatTokenizer>,
    seed: u64,
    previewed: usize,
    preview: &mut dyn FnMut(PreviewedRow) -> Result<()>,
    progress: &mut dyn FnMut(ReadingProgress),
) -> Result<DataReport> {
    let mut train = Measured::default();
    train
        .read(&section.train, section, tokenizer, previewed, preview, progress)
        .context(|| "while reading the training data".to_owned())?;
    let mut held_out = Measured::default();
    let mut validation_counts = None;
    match &section.validation {
        Validation::None => {}
        Validation::Auto => held_out = train.split_off(section),
        Validation::Files(files) => {
            held_out
                .read(files, section, tokenizer, 0, preview, progress)
                .context(|| "while reading the validation data".to_owned())?;
            validation_counts = Some(held_out.filter.counts);
        }
    }
    let (leaks, leak_warning) = leaks(&train, &held_out);
    let files = train.facts.iter().map(|facts| &*train.files[facts.file as usize]);
    let mixture = Mixture::new(files, &section.sources, seed);
    let drawn = mixture.map(|mixture| mixture.draw(0));
    let bad = train.bad + held_out.bad;
    let mut bad_rows = std::mem::take(&mut train.bad_rows);
    bad_rows.append(&mut held_out.bad_rows);
    bad_rows.truncate(NAMED_BAD);
    Ok(DataReport {
        bad,
        bad_rows,
        counts: train.filter.counts,
        validation_counts,
        train: train.report(drawn.as_deref(), section.max_length),
        validation: (!held_out.facts.is_empty()).then(|| held_out.report(None, section.max_length)),
        lengths: histogram(&train.lengths, section.max_length),
        leaks,
        leak_warning,
    })
}

impl Measured {
    fn read(
        &mut self,
        files: &[PathBuf],
        section: &DataSection,
        tokenizer: Option<&ChatTokenizer>,
        previewed: usize,
        preview: &mut dyn FnMut(PreviewedRow) -> Result<()>,
        progress: &mut dyn FnMut(ReadingProgress),
    ) -> Result<()> {
        let mut visit = |row: std::result::Result<EncodedRow, BadRow>| {
            let mut row = match row {
                Ok(row) => row,
                Err(bad) => {
                    self.refuse(bad);
                    return Ok(());
                }
            };
            for (input_ids, _) in &row.tokens.examples {
                *self.lengths.entry(input_ids.len()).or_default() += 1;
            }
            let fitted = self.filter.accept(&mut row, section);
            self.keep(&row, fitted.as_ref());
            if self.filter.counts.rows > previewed {
                return Ok(());
            }
            let remarks = remarks(fitted.as_ref());
            let examples = fitted.map(|fitted| fitted.examples).unwrap_or_default();
            preview(PreviewedRow { source: row.source, kind: row.tokens.kind, examples, remarks })
        };
        read_rows(files, tokenizer, section, &mut visit, progress)
    }

    fn refuse(&mut self, BadRow { source, error }: BadRow) {
        self.bad += 1;
        if self.bad_rows.len() < NAMED_BAD {
            self.bad_rows.push(UnusableRow {
                file: source.file.to_path_buf(),
                row: source.row,
                problem: error.to_string(),
                hint: error.hint_text().map(str::to_owned),
                error,
            });
        }
    }

    fn keep(&mut self, row: &EncodedRow, fitted: Option<&FittedRow>) {
        if self.files.last() != Some(&row.source.file) {
            self.files.push(row.source.file.clone());
        }
        for (input_ids, supervised) in fitted.into_iter().flat_map(|fitted| &fitted.examples) {
            self.facts.push(Facts {
                content_hash: row.content_hash,
                length: input_ids.len() as u32,
                supervised: supervised.iter().skip(1).filter(|&&trained| trained).count() as u32,
                file: self.files.len() as u32 - 1,
                line: row.source.row as u32,
            });
        }
    }

    /// Takes the validation side out, as training does.
    fn split_off(&mut self, section: &DataSection) -> Self {
        let hashes = self.facts.iter().map(|facts| facts.content_hash);
        let held_out = if section.streaming {
            let chosen = first_chosen(hashes, section);
            self.facts.extract_if(.., |facts| chosen.contains(&facts.content_hash)).collect()
        } else {
            let Some(threshold) = validation_threshold(hashes, section.validation_fraction) else {
                return Self::default();
            };
            self.facts.extract_if(.., |facts| facts.content_hash <= threshold).collect()
        };
        Self { facts: held_out, files: self.files.clone(), ..Self::default() }
    }

    /// `drawn` are the examples of an epoch, where they are not simply all.
    fn report(&self, drawn: Option<&[u32]>, max_length: usize) -> PartReport {
        let mut lengths: BTreeMap<usize, usize> = BTreeMap::new();
        let mut epoch_lengths = BTreeMap::new();
        self.facts.iter().for_each(|facts| *lengths.entry(facts.length as usize).or_default() += 1);
        for &index in drawn.unwrap_or_default() {
            *epoch_lengths.entry(self.facts[index as usize].length as usize).or_default() += 1;
        }
        let epoch = if drawn.is_some() { &epoch_lengths } else { &lengths };
        let tokens = |lengths: &BTreeMap<usize, usize>| -> usize {
            lengths.iter().map(|(length, count)| length * count).sum()
        };
        let packed = packed_sequences(epoch, max_length);
        let capacity = (packed * max_length).max(1);
        PartReport {
            rows: self.facts.chunk_by(|a, b| (a.file, a.line) == (b.file, b.line)).count(),
            examples: self.facts.len(),
            tokens: tokens(&lengths),
            supervised_tokens: self.facts.iter().map(|facts| facts.supervised as usize).sum(),
            epoch_examples: epoch.values().sum(),
            epoch_tokens: tokens(epoch),
            shortest: lengths.keys().next().copied().unwrap_or(0),
            median: median(&lengths),
            longest: lengths.keys().next_back().copied().unwrap_or(0),
            packed_sequences: packed,
            packing_efficiency: tokens(epoch) as f64 / capacity as f64,
        }
    }

    fn place(&self, facts: &Facts) -> String {
        format!("{}:{}", self.files[facts.file as usize].display(), facts.line)
    }
}

/// The hashes that are held out of rows that are streamed.
fn first_chosen(hashes: impl Iterator<Item = u64>, section: &DataSection) -> HashSet<u64> {
    let limit = hash_limit(section.validation_fraction);
    let mut chosen = HashSet::new();
    for hash in hashes.filter(|&hash| hash <= limit) {
        if chosen.len() == section.max_validation_rows {
            break;
        }
        chosen.insert(hash);
    }
    chosen
}

fn remarks(fitted: Option<&FittedRow>) -> Vec<&'static str> {
    let Some(fitted) = fitted else { return vec!["left out: a duplicate"] };
    let all = [
        (fitted.truncated, "cut to data.max_length"),
        (fitted.dropped, "dropped: longer than data.max_length"),
        (fitted.split, "split at data.max_length"),
        (fitted.unsupervised(), "left out: nothing in it is trained"),
    ];
    all.into_iter().filter(|(holds, _)| *holds).map(|(_, remark)| remark).collect()
}

/// How many validation rows are also trained on, and a warning.
fn leaks(train: &Measured, validation: &Measured) -> (usize, Option<String>) {
    let mut theirs: HashMap<u64, &Facts> = HashMap::with_capacity(validation.facts.len());
    validation.facts.iter().for_each(|facts| {
        theirs.insert(facts.content_hash, facts);
    });
    let trained: HashMap<u64, &Facts> = train
        .facts
        .iter()
        .filter(|facts| theirs.contains_key(&facts.content_hash))
        .map(|facts| (facts.content_hash, facts))
        .collect();
    let rows = validation.facts.chunk_by(|a, b| (a.file, a.line) == (b.file, b.line));
    let leaked: Vec<(&Facts, &Facts)> = rows
        .filter_map(|row| row.first())
        .filter_map(|facts| Some((facts, *trained.get(&facts.content_hash)?)))
        .collect();
    let named: Vec<String> = leaked
        .iter()
        .take(NAMED_LEAKS)
        .map(|(here, there)| format!("{} is {}", validation.place(here), train.place(there)))
        .collect();
    (leaked.len(), (!leaked.is_empty()).then(|| leak_words(leaked.len(), &named)))
}

fn median(lengths: &BTreeMap<usize, usize>) -> usize {
    let half = lengths.values().sum::<usize>().div_ceil(2);
    let mut below = 0;
    let found = lengths.iter().find(|(_, count)| {
        below += **count;
        below >= half
    });
    found.map_or(0, |(length, _)| *length)
}

/// Bars as wide as the lengths that batches are padded to; `max_length` ends one.
fn histogram(lengths: &BTreeMap<usize, usize>, max_length: usize) -> Vec<(usize, usize)> {
    let mut bars: BTreeMap<usize, usize> = BTreeMap::new();
    for (&length, &count) in lengths {
        let limit = if length <= max_length { max_length } else { usize::MAX };
        *bars.entry(bucket_length(length, limit)).or_default() += count;
    }
    bars.into_iter().collect()
}
