//! One tokenized row.

use crate::error::{Error, Result};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Where a row came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowSource {
    pub file: Arc<Path>,
    /// Line in the file; the first is 1.
    pub row: usize,
}

/// `file:line`, the form that editors and compilers use.
impl fmt::Display for RowSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.row)
    }
}

/// A row as token ids, with the tokens that the model learns to predict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// `[length]`
    pub input_ids: Vec<u32>,
    /// `[length]`: whether each token is a training target. A target is predicted from the tokens before it, so the
    /// first entry never contributes to the loss.
    pub supervised: Vec<bool>,
    pub source: RowSource,
    /// Hash of the row's text; equal rows have equal hashes whatever the tokenizer.
    pub content_hash: u64,
}

impl Example {
    /// Length in tokens.
    pub fn len(&self) -> usize {
        self.input_ids.len()
    }

    pub fn is_empty(&self) -> bool {
        self.input_ids.is_empty()
    }

    /// Checks that every token id has a row in the embedding.
    pub(crate) fn check_vocabulary(&self, vocab_size: usize) -> Result<()> {
        let Some(id) = self.input_ids.iter().find(|&&id| id as usize >= vocab_size) else { return Ok(()) };
        Err(Error::data(format!(
            "{}: token id {id} does not exist in the model, whose vocabulary has {vocab_size} tokens",
            self.source
        ))
        .hint("use the tokenizer that belongs to the model"))
    }

    /// Number of positions that contribute to the loss.
    pub fn supervised_tokens(&self) -> usize {
        self.supervised.iter().skip(1).filter(|&&supervised| supervised).count()
    }
}
