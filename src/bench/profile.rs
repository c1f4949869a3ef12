//! Where a step's time goes: operations run one by one, each timed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::MicroBatch;
use super::cost::step_cost;
use crate::executor::{Observer, kind_of};
use crate::plan::{Cost, Plan};

/// Time of every operation of one plan, in plan order.
type Times = HashMap<usize, Duration>;

/// Adds up times by plan and operation; clones share them.
#[derive(Clone, Default)]
pub(super) struct Stopwatch(Arc<Mutex<HashMap<usize, Times>>>);

/// Plans stay where they are while the executor's cache holds them.
fn address(plan: &Plan) -> usize {
    std::ptr::from_ref(plan).addr()
}

impl Observer for Stopwatch {
    fn one_by_one(&self) -> bool {
        true
    }

    fn operation_done(&mut self, plan: &Plan, index: usize, took: Duration) {
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *times.entry(address(plan)).or_default().entry(index).or_default() += took;
    }
}

/// One kind of operation; everything per step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KindRow {
    pub kind: String,
    pub calls: usize,
    pub ms: f64,
    pub percent_of_step: f64,
    pub gflop: f64,
    pub gflop_per_second: f64,
    /// `None` where no peak is known.
    pub percent_of_peak: Option<f64>,
    pub gb: f64,
    pub gb_per_second: f64,
}

/// Steps whose operations ran one by one.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct StepProfile {
    pub steps: usize,
    /// Mean time of such a step, the kinds' sum and what lies between operations.
    pub step_ms: f64,
    /// Longest first.
    pub kinds: Vec<KindRow>,
}

#[derive(Default)]
struct Sum {
    calls: usize,
    time: Duration,
    cost: Cost,
}

/// How steps were profiled.
pub(super) struct Profiled<'a> {
    pub stopwatch: &'a Stopwatch,
    /// Of one step.
    pub batches: &'a [MicroBatch],
    pub steps: usize,
    pub step_ms: f64,
    /// Operations per second.
    pub peak: Option<f64>,
    /// Tell operations of different shapes apart.
    pub shapes: bool,
}

impl Profiled<'_> {
    pub fn table(&self) -> StepProfile {
        let times = self.stopwatch.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
        let mut seen = Vec::new();
        for MicroBatch { plan, supervised, .. } in self.batches {
            // Micro-batches of the same plan add up in the same times.
            let first = !seen.contains(&address(plan));
            seen.push(address(plan));
            for &index in plan.batches.iter().flatten() {
                let sum = sums.entry(self.label(plan, index)).or_default();
                sum.calls += 1;
                sum.cost = sum.cost + step_cost(&plan.graph, index, *supervised);
                if first && let Some(time) = times.get(&address(plan)).and_then(|times| times.get(&index)) {
                    sum.time += *time;
                }
            }
        }
        let mut kinds: Vec<KindRow> = sums.into_iter().map(|(kind, sum)| self.row(kind, &sum)).collect();
        kinds.sort_by(|left, right| right.ms.total_cmp(&left.ms));
        StepProfile { steps: self.steps, step_ms: self.step_ms, kinds }
    }

    fn row(&self, kind: String, sum: &Sum) -> KindRow {
        let seconds = sum.time.as_secs_f64() / self.steps as f64;
        let per_second = |work: f64| if seconds > 0.0 { work / seconds } else { 0.0 };
        let rate = per_second(sum.cost.flops);
        KindRow {
            kind,
            calls: sum.calls,
            ms: seconds * 1e3,
            percent_of_step: 100.0 * seconds * 1e3 / self.step_ms,
            gflop: sum.cost.flops / 1e9,
            gflop_per_second: rate / 1e9,
            percent_of_peak: self.peak.map(|peak| 100.0 * rate / peak),
            gb: sum.cost.bytes / 1e9,
            gb_per_second: per_second(sum.cost.bytes) / 1e9,
        }
    }

    /// `Linear`, or with shapes `Linear [2048, 576] [1536, 576]`.
    fn label(&self, plan: &Plan, index: usize) -> String {
        let nodes = plan.graph.nodes();
        let mut label = kind_of(&nodes[index].operation);
        if self.shapes {
            // An optimizer over many tensors would fill the line; two operands tell products apart.
            for &input in nodes[index].inputs.iter().take(2) {
                label.push_str(&format!(" {:?}", nodes[input].tensor_type().shape.dims()));
            }
        }
        label
    }
}
