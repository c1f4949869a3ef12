//! Results that do not depend on the step's inputs: packed weights, rope tables, constants.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;

use crate::error::Result;

/// Names a value by how it is computed, so that plans of different shapes share it.
pub type CacheKey = [u8; 32];

/// Values of one device by what they compute.
#[derive(Debug)]
pub struct TensorCache<T> {
    values: DashMap<CacheKey, Arc<T>>,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl<T> Default for TensorCache<T> {
    fn default() -> Self {
        Self { values: DashMap::new(), hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }
}

impl<T> TensorCache<T> {
    /// The cached value, computed at the first request.
    ///
    /// # Errors
    /// Whatever `compute` returns; nothing is cached then.
    pub fn get_or_compute(&self, key: &CacheKey, compute: impl FnOnce() -> Result<Arc<T>>) -> Result<Arc<T>> {
        if let Some(value) = self.values.get(key) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(value.clone());
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let value = compute()?;
        self.values.insert(*key, value.clone());
        Ok(value)
    }

    /// Requests answered from the cache, and requests that computed.
    pub fn counts(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }

    /// Folds over what is cached.
    pub fn total(&self, measure: impl Fn(&T) -> usize) -> usize {
        self.values.iter().map(|value| measure(&value)).sum()
    }
}
