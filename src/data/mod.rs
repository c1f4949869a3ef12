//! From files of rows to batches of token ids.
//!
//! ```text
//! jsonl line -> row -> chat template -> token ids + supervision mask -> example -> window of batches
//! ```
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
pub mod prefetch;
pub mod preview;
pub mod report;
pub mod row;
pub mod special_tokens;
pub mod split;
mod stream;
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
pub use template::ChatTemplate;
pub use tokenizer::ChatTokenizer;
