//! Rows in memory.

use std::collections::HashMap;

use super::{Hidden, Kept, RowKey};

/// Bytes that a row takes besides its hidden states: key, pointers, and the allocator's share.
const ROW_OVERHEAD: u64 = 128;

/// Keeps what comes first. Every epoch meets every row once, so that replacing rows would only lose those which come
/// back sooner.
#[derive(Debug)]
pub struct MemoryRows {
    rows: HashMap<RowKey, Hidden>,
    bytes: u64,
    limit: u64,
}

impl MemoryRows {
    /// `limit` in bytes.
    pub fn new(limit: u64) -> Self {
        Self { rows: HashMap::new(), bytes: 0, limit }
    }

    /// The row's hidden states, if they are known and take `bytes`.
    pub fn get(&self, key: &RowKey, bytes: usize) -> Option<Hidden> {
        self.rows.get(key).filter(|hidden| hidden.len() == bytes).cloned()
    }

    pub fn insert(&mut self, key: RowKey, hidden: &Hidden) -> Kept {
        if self.rows.contains_key(&key) {
            return Kept::Yes;
        }
        let bytes = self.bytes + hidden.len() as u64 + ROW_OVERHEAD;
        if bytes > self.limit {
            return Kept::Full;
        }
        self.bytes = bytes;
        self.rows.insert(key, hidden.clone());
        Kept::Yes
    }

    /// Rows, their bytes, and most bytes.
    pub fn counts(&self) -> (usize, u64, u64) {
        (self.rows.len(), self.bytes, self.limit)
    }
}
