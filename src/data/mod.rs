//! From files of rows to batches of token ids.
//!
//! ```text
//! file (plain, gzip, zstd, Parquet) -> line -> row -> chat template -> token ids + supervision mask -> length limit -> example
//! examples -> order of the epoch -> window of batches
//! ```
//!
//! Files are streamed in chunks of lines, tokenized on all cores or found on disk; `Dataset` keeps the tokens, `report`
//! only counts them. An example is what a sequence is made of: a row, a piece of a long one, or, for templates that
//! rewrite earlier turns, a conversation up to one of its answers.
//!
//! All rows are tokenized before the first step: a checkpoint names the data by a hash over all of it, and shuffling,
//! packing and the length of an epoch need every row's length; kept tokens make this quick from the second run on. Where
//! files are too large for that, [`streaming`] trains on the first rows while the others are read.
//!
//! Everything here is deterministic: the same files, tokenizer and seed give the same batches in the same order on
//! any number of threads, and a [`LoaderState`] continues an interrupted epoch exactly where it stopped.

pub mod batch;
mod cache;
pub mod dataset;
pub mod encode;
pub mod example;
pub mod files;
mod fit;
pub mod jsonl;
pub mod loader;
pub mod message;
mod mixture;
mod notices;
mod open;
pub mod order;
pub mod packing;
#[cfg_attr(not(feature = "parquet"), path = "without_parquet.rs")]
mod parquet;
pub mod prefetch;
pub mod preview;
pub mod report;
pub mod row;
pub mod special_tokens;
pub mod split;
mod stream;
pub mod streaming;
pub mod supervision;
pub mod template;
pub mod template_functions;
pub mod tokenizer;

pub use batch::{Batch, IGNORE_TARGET, PADDING_SEGMENT, bucket_length};
pub use dataset::{Dataset, DatasetCounts};
pub use example::{Example, RowSource};
pub use loader::{Loader, LoaderOptions, LoaderState, Window};
pub use message::Message;
pub use prefetch::PrefetchingLoader;
pub use row::{ChatRow, Row, RowKind};
pub use special_tokens::SpecialTokens;
pub use split::Splits;
pub use stream::ReadingProgress;
pub use streaming::{HeldOut, StreamOptions, StreamPosition, StreamingLoader};
pub use template::ChatTemplate;
pub use tokenizer::ChatTokenizer;
