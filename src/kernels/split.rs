//! How the elements or rows of an output are dealt out to parts, and how lengths are checked.

use std::ops::Range;
use std::sync::OnceLock;

use crate::error::{Error, Result};

/// Bytes that one part reads and writes: enough to hide what claiming a part costs, little enough to balance threads.
const PART_BYTES: usize = 128 << 10;

/// A range cut into blocks of equal length; the last may be shorter.
#[derive(Debug, Clone, Copy)]
pub struct Split {
    total: usize,
    block: usize,
}

impl Split {
    /// Blocks of `block` each (at least one).
    pub fn by(total: usize, block: usize) -> Self {
        Self { total, block: block.max(1) }
    }

    /// Blocks of rows that move about 128 KiB each.
    pub fn rows(rows: usize, bytes_per_row: usize) -> Self {
        Self::by(rows, PART_BYTES / bytes_per_row.max(1))
    }

    pub fn count(&self) -> usize {
        self.total.div_ceil(self.block)
    }

    pub fn range(&self, part: usize) -> Range<usize> {
        let start = (part * self.block).min(self.total);
        start..(start + self.block).min(self.total)
    }
}

/// Threads that this machine runs side by side: parts that are a multiple of them end together.
pub fn hardware_threads() -> usize {
    static THREADS: OnceLock<usize> = OnceLock::new();
    *THREADS.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Checks that a span has as many elements as the operation's shape says.
///
/// # Errors
/// An internal error naming `what` where the lengths differ: the plan bound the wrong memory.
pub fn expect_len(what: &str, actual: usize, expected: usize) -> Result<()> {
    if actual == expected {
        return Ok(());
    }
    Err(Error::internal(format!("{what} is bound to {actual} elements where the shape has {expected}")))
}
