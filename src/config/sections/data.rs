//! `[data]`: the rows to train on and how they become sequences of tokens.

use super::values::TextOrList;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The rows to train and validate on.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("anyOf" = [{"required": ["train"]}, {"required": ["sources"]}]))]
pub(in crate::config) struct RawData {
    /// JSONL files (plain, gzip or zstd) or globs, relative to this file, or hf://datasets/owner/name/path on the hub.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "TextOrList")]
    pub train: Option<TextOrList>,
    /// Instead of train: files with weights. A source's weight over the sum of all is its share of an epoch's draws.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<RawSource>,
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
    /// Train while the files are still being read, for files larger than memory: rows are shuffled near where they stand.
    pub streaming: bool,
    /// With streaming: examples that are shuffled and packed together; they are in memory, as are the next as many.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub shuffle_buffer: usize,
    /// With streaming: most rows that validation = "auto" holds out; they are the first that the hash chooses.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_validation_rows: usize,
    /// Join short rows in one sequence, kept apart by the attention mask: less padding, more tokens a second.
    pub packing: bool,
    /// Which tokens carry loss: every "assistant" turn, the "last" one, only the "completion" of a row, or "all" tokens.
    pub train_on: TrainOn,
    /// Rows longer than max_length: "truncate" keeps their first tokens, "drop" leaves them out, "split" makes several.
    pub overlong: Overlong,
    /// Train on one of several rows with the same text.
    pub deduplicate: bool,
    /// Keep the tokens of large files on disk, so that the next run need not tokenize them again.
    pub cache: bool,
    /// Folder for these tokens; by default lazytune/tokens in the user's cache folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub cache_dir: Option<PathBuf>,
    /// A Jinja file to use instead of the model's own chat template.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub chat_template: Option<PathBuf>,
}

/// Files that are drawn from together.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawSource {
    /// Files or globs, as in train.
    pub path: TextOrList,
    /// How often these rows are drawn, in proportion to the other sources' weights.
    #[serde(default = "RawSource::default_weight")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub weight: f64,
}

impl RawSource {
    fn default_weight() -> f64 {
        1.0
    }
}

impl Default for RawData {
    fn default() -> Self {
        Self {
            train: None,
            sources: Vec::new(),
            validation: TextOrList::Text("auto".to_owned()),
            validation_fraction: 0.05,
            max_length: 512,
            shuffle: true,
            streaming: false,
            shuffle_buffer: 4096,
            max_validation_rows: 200,
            packing: false,
            train_on: TrainOn::Assistant,
            overlong: Overlong::Truncate,
            deduplicate: false,
            cache: true,
            cache_dir: None,
            chat_template: None,
        }
    }
}

/// The rows to train and validate on, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct DataSection {
    /// Existing files, absolute, each once, in the order to read them.
    pub train: Vec<PathBuf>,
    /// The same files by source, where sources have weights; else empty.
    pub sources: Vec<WeightedSource>,
    pub validation: Validation,
    /// In (0, 1); read only for [`Validation::Auto`].
    pub validation_fraction: f64,
    /// Tokens.
    pub max_length: usize,
    pub shuffle: bool,
    /// Whether rows are trained on while the files are read.
    pub streaming: bool,
    /// Examples; read only with streaming.
    pub shuffle_buffer: usize,
    /// Read only with streaming and [`Validation::Auto`].
    pub max_validation_rows: usize,
    pub packing: bool,
    pub train_on: TrainOn,
    pub overlong: Overlong,
    pub deduplicate: bool,
    /// Whether tokens of large files are kept on disk.
    pub cache: bool,
    /// `None` is the user's cache folder.
    pub cache_dir: Option<PathBuf>,
    pub chat_template: Option<PathBuf>,
}

/// The defaults of all keys, and no files.
impl Default for DataSection {
    fn default() -> Self {
        let raw = RawData::default();
        Self {
            train: Vec::new(),
            sources: Vec::new(),
            validation: Validation::Auto,
            validation_fraction: raw.validation_fraction,
            max_length: raw.max_length,
            shuffle: raw.shuffle,
            streaming: raw.streaming,
            shuffle_buffer: raw.shuffle_buffer,
            max_validation_rows: raw.max_validation_rows,
            packing: raw.packing,
            train_on: raw.train_on,
            overlong: raw.overlong,
            deduplicate: raw.deduplicate,
            cache: raw.cache,
            cache_dir: None,
            chat_template: None,
        }
    }
}

/// Files whose rows are drawn in proportion to a weight.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedSource {
    /// Existing files, absolute.
    pub files: Vec<PathBuf>,
    /// Finite and positive.
    pub weight: f64,
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
    Completion,
    All,
}

/// What happens to a row that is longer than `max_length`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Overlong {
    Truncate,
    Drop,
    Split,
}
