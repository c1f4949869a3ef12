//! What is known about plans, memory and layers.

use std::collections::VecDeque;

use super::series::Series;
use crate::metrics::{Event, LayerReport, MemoryKind, PassCount, StepReport};

/// Plans that are shown.
const PLANS: usize = 16;
/// Bars that the widths of batches are kept in.
const WIDTHS: usize = 512;
/// Looks at the layers that are kept; thinned to half when there are more.
const LOOKS: usize = 64;
/// Layers that are kept.
const LAYERS: usize = 4096;
/// Kinds of memory that are kept.
const KINDS: usize = 32;

/// One compiled plan.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PlanFacts {
    pub rows: usize,
    pub sequence: usize,
    pub updates: bool,
    pub operations: usize,
    pub batches: usize,
    pub arena_bytes: usize,
    pub operations_before: usize,
    pub passes: Vec<PassCount>,
    /// The widest batch of each of at most `WIDTHS` parts of the plan.
    pub widths: Vec<u32>,
    pub kernels: usize,
    pub plan_ms: f64,
}

/// Plans by shape, and the counters of their caches.
#[derive(Debug, Clone, Default)]
pub struct Plans {
    /// Latest last.
    pub plans: VecDeque<PlanFacts>,
    pub plan_hits: u64,
    pub plan_misses: u64,
    pub tensor_hits: u64,
    pub tensor_misses: u64,
    /// Of the last step.
    pub command_buffers: u64,
}

impl Plans {
    /// Takes in a plan; an earlier one of its shape is forgotten.
    pub fn planned(&mut self, event: &Event) {
        let Event::Planned {
            rows,
            sequence,
            updates,
            operations,
            batches,
            arena_bytes,
            operations_before,
            passes,
            widths,
            kernels,
            plan_ms,
        } = event
        else {
            return;
        };
        let part = widths.len().div_ceil(WIDTHS).max(1);
        let facts = PlanFacts {
            rows: *rows,
            sequence: *sequence,
            updates: *updates,
            operations: *operations,
            batches: *batches,
            arena_bytes: *arena_bytes,
            operations_before: *operations_before,
            passes: passes.iter().take(KINDS).cloned().collect(),
            widths: widths.chunks(part).filter_map(|part| part.iter().max().copied()).collect(),
            kernels: *kernels,
            plan_ms: *plan_ms,
        };
        let same =
            |plan: &PlanFacts| (plan.rows, plan.sequence, plan.updates) != (*rows, *sequence, *updates);
        self.plans.retain(same);
        if self.plans.len() == PLANS {
            self.plans.pop_front();
        }
        self.plans.push_back(facts);
    }

    /// Takes the counters of the caches over.
    pub fn step(&mut self, report: &StepReport) {
        self.plan_hits = report.plan_hits;
        self.plan_misses = report.plan_misses;
        self.tensor_hits = report.tensor_hits;
        self.tensor_misses = report.tensor_misses;
        self.command_buffers = report.command_buffers;
    }

    /// The plan that tells most about a step: the latest that updates, else the latest.
    pub fn main(&self) -> Option<&PlanFacts> {
        self.plans.iter().rev().find(|plan| plan.updates).or(self.plans.back())
    }
}

/// Bytes by kind, and of the process over the steps.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// In the order that the run tells them in.
    pub kinds: Vec<MemoryKind>,
    pub process_bytes: u64,
    pub limit_bytes: u64,
    /// Bytes of the process, or what is measured where that is not known.
    pub history: Series,
}

impl Memory {
    /// Takes in a look at the memory after a step.
    pub fn measured(&mut self, step: usize, kinds: &[MemoryKind], process_bytes: u64, limit_bytes: u64) {
        self.kinds = kinds.iter().take(KINDS).cloned().collect();
        self.process_bytes = process_bytes;
        self.limit_bytes = limit_bytes;
        let bytes = if process_bytes > 0 { process_bytes } else { self.total() };
        self.history.push(step as f64, bytes as f64);
    }

    /// Measured bytes of all kinds, or planned ones where nothing was measured.
    pub fn total(&self) -> u64 {
        let bytes = |kind: &MemoryKind| kind.measured_bytes.unwrap_or(kind.planned_bytes);
        self.kinds.iter().map(bytes).fold(0, u64::saturating_add)
    }
}

/// Norms of the adapters at one step.
#[derive(Debug, Clone, Default)]
pub struct LayerLook {
    /// How many looks there were before.
    ordinal: usize,
    pub step: usize,
    pub layers: Vec<LayerReport>,
}

/// Norms of the adapters over the run.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// Oldest first.
    pub looks: VecDeque<LayerLook>,
    /// Every how many looks one is kept, as a power of two.
    doublings: u32,
}

impl Layers {
    /// The latest look is always there; of the ones before, every second, fourth or eighth and so on is kept.
    pub fn looked(&mut self, step: usize, layers: &[LayerReport]) {
        let ordinal = self.looks.back().map_or(0, |look| look.ordinal + 1);
        self.thin(ordinal);
        self.looks.push_back(LayerLook {
            ordinal,
            step,
            layers: layers.iter().take(LAYERS).cloned().collect(),
        });
        if self.looks.len() > LOOKS {
            self.doublings += 1;
            self.thin(ordinal);
        }
    }

    /// Keeps what is due, and the look with this ordinal.
    fn thin(&mut self, latest: usize) {
        let due = |ordinal: usize| ordinal.trailing_zeros() >= self.doublings || ordinal == latest;
        self.looks.retain(|look| due(look.ordinal));
    }

    /// The look that was taken last.
    pub fn latest(&self) -> Option<&LayerLook> {
        self.looks.back()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_at_layers_are_thinned_evenly_and_end_with_the_latest() {
        let mut layers = Layers::default();
        for step in 0..1000 {
            layers.looked(step, &[LayerReport::default()]);
            assert_eq!(layers.latest().map(|look| look.step), Some(step));
        }
        let steps: Vec<usize> = layers.looks.iter().map(|look| look.step).collect();
        assert!(steps.len() <= LOOKS && steps[0] == 0);
        assert!(steps.windows(2).all(|pair| pair[1] - pair[0] <= 16), "{steps:?}");
    }

    #[test]
    fn a_plan_of_the_same_shape_takes_the_place_of_the_one_before() {
        let planned = |rows, operations| Event::Planned {
            rows,
            sequence: 128,
            updates: true,
            operations,
            batches: 3,
            arena_bytes: 0,
            operations_before: 0,
            passes: Vec::new(),
            widths: (0..2000).collect(),
            kernels: 0,
            plan_ms: 0.0,
        };
        let mut plans = Plans::default();
        for rows in 0..100 {
            plans.planned(&planned(rows, 10));
        }
        plans.planned(&planned(99, 11));
        assert_eq!(plans.plans.len(), PLANS);
        assert_eq!(plans.main().map(|plan| plan.operations), Some(11));
        assert!(
            plans.plans.iter().all(|plan| plan.widths.len() <= WIDTHS && plan.widths.last() == Some(&1999))
        );
    }
}
