//! `[data]`: the rows to train on and how they become sequences of tokens.

use super::values::TextOrList;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The rows to train and validate on.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["train"]))]
pub(in crate::config) struct RawData {
    /// JSONL files or globs ("data/*.jsonl"), relative to this file; matches of a glob are sorted by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "TextOrList")]
    pub train: Option<TextOrList>,
    /// "auto" holds validation_fraction of the training rows out, "none" validates nothing, else files or globs.
    pub validation: TextOrList,
    /// Share of the rows that validation = "auto" holds out: these rows are not trained on.
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1))]
    pub validation_fraction: f64,
    /// Longest sequence in tokens. Activation memory grows linearly with it, attention time quadratically.
    #[schemars(range(min = 2, max = 1_048_576))]
    pub max_length: usize,
    /// Draw the rows in a fresh random order each epoch; false keeps their order in the files.
    pub shuffle: bool,
    /// Join short rows in one sequence, kept apart by the attention mask: less padding, more tokens a second.
    pub packing: bool,
    /// Which tokens of a conversation carry loss: every "assistant" turn, the "last" one, or "all" tokens.
    pub train_on: TrainOn,
    /// Rows longer than max_length: "truncate" keeps their first max_length tokens, "drop" leaves them out.
    pub overlong: Overlong,
    /// A Jinja file to use instead of the model's own chat template.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub chat_template: Option<PathBuf>,
}

impl Default for RawData {
    fn default() -> Self {
        Self {
            train: None,
            validation: TextOrList::Text("auto".to_owned()),
            validation_fraction: 0.05,
            max_length: 512,
            shuffle: true,
            packing: false,
            train_on: TrainOn::Assistant,
            overlong: Overlong::Truncate,
            chat_template: None,
        }
    }
}

/// The rows to train and validate on, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct DataSection {
    /// Existing files, absolute, each once, in the order to read them.
    pub train: Vec<PathBuf>,
    pub validation: Validation,
    /// In (0, 1); read only for [`Validation::Auto`].
    pub validation_fraction: f64,
    /// Tokens.
    pub max_length: usize,
    pub shuffle: bool,
    pub packing: bool,
    pub train_on: TrainOn,
    pub overlong: Overlong,
    pub chat_template: Option<PathBuf>,
}

/// Where validation rows come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Validation {
    None,
    /// Held out of the training rows.
    Auto,
    /// Existing files, absolute, none of them also trained on.
    Files(Vec<PathBuf>),
}

/// Which tokens of a conversation carry loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum TrainOn {
    Assistant,
    Last,
    All,
}

/// What happens to a row that is longer than `max_length`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Overlong {
    Truncate,
    Drop,
}
