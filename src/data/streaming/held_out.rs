//! Validation rows of files that are too large to be read first.

use crate::config::DataSection;
use crate::data::dataset::{Dataset, RowFilter};
use crate::data::files::expand;
use crate::data::jsonl::{Line, LineReader};
use crate::data::split::hash_limit;
use crate::data::stream::{ChunkEncoder, EncodedRow, content_hash};
use crate::data::tokenizer::ChatTokenizer;
use crate::error::{Result, ResultExt};
use std::collections::HashSet;
use std::path::PathBuf;

/// Lines that are tokenized together.
const CHUNK_LINES: usize = 64;

/// Rows that are validated on, and kept out of the training wherever they come again.
#[derive(Debug, Clone, Default)]
pub struct HeldOut {
    pub validation: Dataset,
    pub hashes: HashSet<u64>,
}

impl HeldOut {
    /// Holds out the first `max_validation_rows` of the rows that `validation_fraction` chooses by the hash of their text.
    /// Of the rows up to there, only those are parsed and tokenized.
    ///
    /// # Errors
    /// A file cannot be read, or a chosen row cannot be read or tokenized.
    pub fn find(
        files: &[PathBuf],
        tokenizer: Option<&ChatTokenizer>,
        section: &DataSection,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Self> {
        let mut search = Search {
            encoder: ChunkEncoder::new(tokenizer, section),
            section,
            filter: RowFilter::default(),
            found: Self::default(),
        };
        let limit = hash_limit(section.validation_fraction);
        let mut passed = 0;
        for file in expand(files)? {
            let mut chosen = Vec::new();
            for line in LineReader::open(&file)? {
                let line = line.context(|| "while looking for validation rows".to_owned())?;
                passed += 1;
                if content_hash(&line.text) <= limit {
                    chosen.push(line);
                }
                if chosen.len() == CHUNK_LINES.min(section.max_validation_rows) {
                    progress(passed);
                    search.take(std::mem::take(&mut chosen))?;
                }
                if search.is_complete() {
                    return Ok(search.finish());
                }
            }
            search.take(chosen)?;
        }
        Ok(search.finish())
    }
}

struct Search<'a> {
    encoder: ChunkEncoder<'a>,
    section: &'a DataSection,
    filter: RowFilter,
    found: HeldOut,
}

impl Search<'_> {
    fn is_complete(&self) -> bool {
        self.found.hashes.len() >= self.section.max_validation_rows
    }

    fn take(&mut self, lines: Vec<Line>) -> Result<()> {
        for (tokens, line) in self.encoder.encode(&lines)?.into_iter().zip(lines) {
            if self.is_complete() {
                break;
            }
            let content_hash = content_hash(&line.text);
            let mut row = EncodedRow { tokens: tokens?, source: line.source, content_hash };
            let fitted = self.filter.accept(&mut row, self.section).unwrap_or_default();
            if !fitted.examples.is_empty() && self.found.hashes.insert(content_hash) {
                self.found.validation.extend(row, fitted);
            }
        }
        Ok(())
    }

    fn finish(mut self) -> HeldOut {
        self.found.validation.counts = self.filter.counts;
        self.found
    }
}
