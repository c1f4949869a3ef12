//! How much memory a step will take, known before it runs.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::graph::{FrozenGraph, FrozenNode, Operation};
use crate::optim::{first_moment_name, gradient_name};
use crate::plan::{Place, Plan, Target, lower_bound};

/// Planned peak bytes by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PlannedMemory {
    /// Frozen weights that operations read as they are.
    pub weights: usize,
    /// Frozen weights laid out for the matrix kernels, and other constants.
    pub packed_weights: usize,
    /// Trained values.
    pub trained: usize,
    /// The optimizer's running means.
    pub optimizer: usize,
    /// Gradients kept between the micro-batches of a window.
    pub gradients: usize,
    /// Activations, their gradients and workspace, which share one arena.
    pub arena: usize,
    /// No schedule of these batches can do with a smaller arena.
    pub arena_lower_bound: usize,
    pub total: usize,
}

impl PlannedMemory {
    /// Adds up what a training step's plan keeps.
    pub fn of(plan: &Plan, target: &dyn Target) -> Self {
        let nodes = plan.graph.nodes();
        let weights = nodes
            .iter()
            .zip(&plan.places)
            .filter(|(node, place)| matches!(node.operation, Operation::Frozen(_)) && **place == Place::Leaf);
        let weights = weights.map(|(node, _)| target.storage_bytes(node)).sum();
        let packed_weights = plan.cached.iter().map(|&index| target.storage_bytes(&nodes[index])).sum();
        let trained = trained_bytes(&plan.graph, target);
        let slots = plan.places.iter().filter_map(|place| match place {
            Place::Arena(slot) => Some(*slot),
            Place::Leaf | Place::Cached | Place::Part { .. } | Place::Nowhere => None,
        });
        let slots: Vec<_> = slots.collect();
        let (optimizer, arena) = (2 * trained, plan.arena_bytes);
        let gradients = if accumulates(&plan.graph) { trained } else { 0 };
        let total = weights + packed_weights + trained + optimizer + gradients + arena;
        let arena_lower_bound = lower_bound(&slots);
        Self { weights, packed_weights, trained, optimizer, gradients, arena, arena_lower_bound, total }
    }

    /// # Errors
    /// A memory error if the plan needs more than `budget` bytes.
    pub fn check(&self, budget: u64, rows: usize, sequence: usize) -> Result<()> {
        if self.total as u64 <= budget {
            return Ok(());
        }
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let message = format!(
            "a step of {rows} rows x {sequence} tokens needs {} MiB ({} MiB of activations), the budget is {} MiB",
            mib(self.total as u64),
            mib(self.arena as u64),
            mib(budget)
        );
        Err(Error::memory(message).hint(
            "lower train.batch_size (with more train.gradient_accumulation_steps), data.max_length or adapter.r, \
             or raise model.memory_budget",
        ))
    }
}

/// States that have a running mean beside them are trained.
fn trained_bytes(graph: &FrozenGraph, target: &dyn Target) -> usize {
    let states: BTreeMap<&str, &FrozenNode> = graph.nodes().iter().filter_map(state).collect();
    let trained = states.iter().filter(|(name, _)| states.contains_key(first_moment_name(name).as_str()));
    trained.map(|(_, node)| target.storage_bytes(node)).sum()
}

/// Whether the step is part of a window of several micro-batches.
fn accumulates(graph: &FrozenGraph) -> bool {
    let states: BTreeMap<&str, &FrozenNode> = graph.nodes().iter().filter_map(state).collect();
    states.keys().any(|name| states.contains_key(gradient_name(name).as_str()))
}

fn state(node: &FrozenNode) -> Option<(&str, &FrozenNode)> {
    match &node.operation {
        Operation::State(name) => Some((name.as_ref(), node)),
        _ => None,
    }
}
