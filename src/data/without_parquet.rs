//! Parquet files in a build that cannot read them.

use crate::error::{Error, Result};
use std::fs::File;
use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Always an error.
pub(super) fn text(path: &Path, _file: File, _bytes_read: Arc<AtomicU64>) -> Result<Box<dyn BufRead + Send>> {
    Err(Error::data(format!("{} is a Parquet file, and this build cannot read those", path.display()))
        .hint("build with the cargo feature \"parquet\", or convert it to JSONL: one JSON object per line"))
}
