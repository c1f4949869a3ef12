//! A bounded cache of plans, least recently used out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;

use super::Plan;
use crate::error::Result;

/// What decides a plan. Everything that differs between steps but not between plans (ids, rates, seeds) is an input.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PlanKey {
    /// Fingerprint of what the graph is built from: model, adapters, optimizer, kind of step.
    pub program: [u8; 32],
    /// Extents of the inputs: rows and tokens a row.
    pub shape: (usize, usize),
    pub device: String,
    pub memory_budget: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheCounts {
    pub hits: u64,
    pub misses: u64,
}

/// Plans by key.
#[derive(Debug)]
pub struct PlanCache {
    plans: DashMap<PlanKey, (Arc<Plan>, u64)>,
    capacity: usize,
    clock: AtomicU64,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl PlanCache {
    pub fn new(capacity: usize) -> Self {
        let [clock, hits, misses] = [0; 3].map(AtomicU64::new);
        Self { plans: DashMap::new(), capacity: capacity.max(1), clock, hits, misses }
    }

    /// The plan for `key`, compiled at the first request.
    ///
    /// # Errors
    /// Whatever `compile` returns; nothing is cached then.
    pub fn get_or_compile(&self, key: &PlanKey, compile: impl FnOnce() -> Result<Plan>) -> Result<Arc<Plan>> {
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        if let Some(mut entry) = self.plans.get_mut(key) {
            entry.1 = now;
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(entry.0.clone());
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let plan = Arc::new(compile()?);
        if self.plans.len() >= self.capacity {
            let oldest =
                self.plans.iter().min_by_key(|entry| entry.value().1).map(|entry| entry.key().clone());
            oldest.and_then(|oldest| self.plans.remove(&oldest));
        }
        self.plans.insert(key.clone(), (plan.clone(), now));
        Ok(plan)
    }

    pub fn counts(&self) -> CacheCounts {
        CacheCounts { hits: self.hits.load(Ordering::Relaxed), misses: self.misses.load(Ordering::Relaxed) }
    }
}
