//! What the trainer sees of the run loop: time by stage of the step and, where asked for, by kind of operation.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::executor::{Observer, kind_of};
use crate::metrics::OperationKindTime;
use crate::plan::{Plan, Stage};

/// Time by stage since the clock was last read, in ms.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StageTimes {
    pub forward: f64,
    pub backward: f64,
    pub optimizer: f64,
}

/// An observer of the run loop; clones share their times.
#[derive(Debug, Clone, Default)]
pub struct StepClock(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Nanoseconds by stage.
    stages: [AtomicU64; 3],
    /// Whether operations run one by one.
    profiling: AtomicBool,
    /// Calls and time by kind.
    kinds: Mutex<BTreeMap<String, (u64, Duration)>>,
}

impl StepClock {
    /// Reads the stages' times and sets them to zero.
    pub fn take_stages(&self) -> StageTimes {
        let ms = |stage: Stage| self.0.stages[stage as usize].swap(0, Ordering::Relaxed) as f64 / 1e6;
        StageTimes {
            forward: ms(Stage::Forward),
            backward: ms(Stage::Backward),
            optimizer: ms(Stage::Optimizer),
        }
    }

    /// From the next step on, operations run one by one and are timed.
    pub fn profile(&self) {
        self.0.profiling.store(true, Ordering::Release);
    }

    /// Ends a profile: the kinds of operations, the one that took longest first.
    pub fn take_profile(&self) -> Vec<OperationKindTime> {
        self.0.profiling.store(false, Ordering::Release);
        let kinds = std::mem::take(&mut *self.0.kinds.lock().unwrap_or_else(PoisonError::into_inner));
        let row = |(kind, (calls, time)): (String, (u64, Duration))| OperationKindTime {
            kind,
            calls,
            ms: time.as_secs_f64() * 1e3,
        };
        let mut kinds: Vec<_> = kinds.into_iter().map(row).collect();
        kinds.sort_by(|left, right| right.ms.total_cmp(&left.ms));
        kinds
    }
}

impl Observer for StepClock {
    fn one_by_one(&self) -> bool {
        self.0.profiling.load(Ordering::Acquire)
    }

    fn batch_done(&mut self, plan: &Plan, batch: usize, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.0.stages[plan.stages[batch] as usize].fetch_add(nanoseconds, Ordering::Relaxed);
    }

    fn operation_done(&mut self, plan: &Plan, index: usize, took: Duration) {
        let mut kinds = self.0.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let (calls, time) = kinds.entry(kind_of(&plan.graph.nodes()[index].operation)).or_default();
        *calls += 1;
        *time += took;
    }
}
