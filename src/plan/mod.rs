//! From an optimized graph to what the executor replays: batches in order, a place in memory for every value.

mod batches;
mod cache;
mod cost;
mod recompute;
mod slots;
mod stage;

use std::collections::HashMap;

use crate::error::Result;
use crate::graph::{FrozenGraph, FrozenNode, Operation};
use crate::passes::{self, Pass, PassReport};

pub use batches::{compute_execution_batches, runs_every_step, storage_of};
pub use cache::{CacheCounts, PlanCache, PlanKey};
pub use cost::{Cost, cost};
pub use recompute::{Recompute, Recomputed};
pub use slots::{ALIGNMENT, Slot, align, assign_offsets, lower_bound};
pub use stage::Stage;

/// What a plan has to know about a device.
pub trait Target {
    /// Bytes that all outputs of a node occupy; only a device knows its packed layouts.
    fn storage_bytes(&self, node: &FrozenNode) -> usize {
        node.outputs.iter().map(|output| align(output.bytes())).sum()
    }

    /// The most operations in one batch.
    fn batch_size_hint(&self) -> usize;

    /// Whether values that no step changes are computed once, for the tensor cache, instead of in every step.
    fn caches_constants(&self) -> bool {
        true
    }

    /// Whether a training step may compute values twice to keep fewer of them.
    fn recomputes(&self) -> bool {
        false
    }

    /// What is done to a graph before it is scheduled.
    fn passes(&self) -> Vec<Pass>;

    /// What is done when it is decided which values are recomputed.
    fn late_passes(&self) -> Vec<Pass> {
        Vec::new()
    }

    /// Whether the device has no kernel for a fused operation: it is then decomposed before differentiation.
    fn lacks_kernel(&self, operation: &Operation) -> bool;
}

/// Optimizes and schedules a graph whose first `read_back` roots the caller reads.
///
/// # Errors
/// An internal error if a pass fails: a bug.
pub fn compile(graph: FrozenGraph, read_back: usize, target: &dyn Target) -> Result<Plan> {
    compile_training(graph, read_back, target, Recompute::Nothing)
}

/// Like [`compile`], for a graph whose first root is a loss and whose other roots are computed from its gradients.
///
/// # Errors
/// An internal error if a pass fails: a bug. A plan that does not get as small as asked for is no error: its
/// `arena_bytes` tell.
pub fn compile_training(
    graph: FrozenGraph,
    read_back: usize,
    target: &dyn Target,
    recompute: Recompute,
) -> Result<Plan> {
    let (graph, reports) = passes::run(graph, &target.passes())?;
    recompute::smallest_enough(graph, recompute, |graph, report| {
        let (graph, late) = passes::run(graph, &target.late_passes())?;
        let passes = reports.iter().cloned().chain(report).chain(late).collect();
        Ok(Plan::new(graph, read_back, passes, target))
    })
}

/// Where the value of a node is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In memory that outlives the step: a weight or a state.
    Leaf,
    /// In the tensor cache: computed once from weights and constants.
    Cached,
    /// In the arena.
    Arena(Slot),
    /// In the bytes of an earlier node, `offset` bytes from their start.
    Part { of: usize, offset: usize },
    /// Not needed at run time: it only led to a cached value.
    Nowhere,
}

/// A scheduled graph with its memory laid out.
#[derive(Debug)]
pub struct Plan {
    pub graph: FrozenGraph,
    /// Indices of operations; those of one batch are independent.
    pub batches: Vec<Vec<usize>>,
    /// The part of a training step that each batch belongs to.
    pub stages: Vec<Stage>,
    pub places: Vec<Place>,
    /// Values that the tensor cache has to hold before the first step.
    pub cached: Vec<usize>,
    /// How many of the graph's roots the caller reads back; the rest are updates of states.
    pub read_back: usize,
    pub arena_bytes: usize,
    pub passes: Vec<PassReport>,
    /// What the backward pass computes a second time.
    pub recomputed: Recomputed,
}

impl Plan {
    /// Schedules `graph` and places its values. The first `read_back` roots stay readable after the step.
    pub fn new(graph: FrozenGraph, read_back: usize, passes: Vec<PassReport>, target: &dyn Target) -> Self {
        let runs = runs_every_step(&graph, target.caches_constants());
        let batches = compute_execution_batches(&graph, &runs, target.batch_size_hint());
        let mut places = vec![Place::Nowhere; graph.nodes().len()];
        let cached = place_leaves_and_constants(&graph, &runs, &mut places);
        let arena_bytes = place_intermediates(&graph, &batches, read_back, target, &mut places);
        place_views(&graph, &mut places);
        let recomputed = Recomputed::default();
        let stages = stage::stages(&graph, &batches);
        Self { graph, batches, stages, places, cached, read_back, arena_bytes, passes, recomputed }
    }

    /// Operations that run at every step.
    pub fn operations(&self) -> usize {
        self.batches.iter().map(Vec::len).sum()
    }

    /// Arithmetic and memory traffic of one step.
    pub fn cost(&self) -> Cost {
        self.batches.iter().flatten().map(|&index| cost(&self.graph, index)).sum()
    }

    /// Names, in the graph's order, of the values that a step takes.
    pub fn inputs(&self) -> impl Iterator<Item = (usize, &str)> {
        self.graph.nodes().iter().enumerate().filter_map(|(index, node)| match &node.operation {
            Operation::Input(name) => Some((index, name.as_ref())),
            _ => None,
        })
    }
}

/// Constants are cached where an operation of the step or a root reads them.
fn place_leaves_and_constants(graph: &FrozenGraph, runs: &[bool], places: &mut [Place]) -> Vec<usize> {
    let nodes = graph.nodes();
    let mut read = vec![false; nodes.len()];
    let readers = (0..nodes.len()).filter(|&index| runs[index]).flat_map(|index| nodes[index].inputs.iter());
    for &input in readers.chain(graph.roots()) {
        read[storage_of(graph, input)] = true;
    }
    let mut cached = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        match node.operation {
            Operation::Frozen(_) | Operation::State(_) if read[index] => places[index] = Place::Leaf,
            _ if read[index] && !runs[index] && node.operation.computes() => {
                places[index] = Place::Cached;
                cached.push(index);
            }
            _ => {}
        }
    }
    cached
}

fn place_intermediates(
    graph: &FrozenGraph,
    batches: &[Vec<usize>],
    read_back: usize,
    target: &dyn Target,
    places: &mut [Place],
) -> usize {
    let nodes = graph.nodes();
    let mut lives: HashMap<usize, (usize, usize)> = HashMap::new();
    for (index, node) in nodes.iter().enumerate() {
        if matches!(node.operation, Operation::Input(_)) {
            lives.insert(index, (0, 0));
        }
    }
    for (batch, operations) in batches.iter().enumerate() {
        for &index in operations {
            if !nodes[index].operation.updates_state() {
                lives.insert(index, (batch, batch));
            }
            for &input in &nodes[index].inputs {
                if let Some(life) = lives.get_mut(&storage_of(graph, input)) {
                    life.1 = life.1.max(batch);
                }
            }
        }
    }
    for &root in &graph.roots()[..read_back] {
        if let Some(life) = lives.get_mut(&storage_of(graph, root)) {
            life.1 = batches.len();
        }
    }
    let mut indices: Vec<usize> = lives.keys().copied().collect();
    indices.sort_unstable();
    let slot = |&index: &usize| {
        let (first, last) = lives[&index];
        Slot { offset: 0, bytes: target.storage_bytes(&nodes[index]), first, last }
    };
    let mut slots: Vec<Slot> = indices.iter().map(slot).collect();
    let arena_bytes = assign_offsets(&mut slots);
    for (&index, &slot) in indices.iter().zip(&slots) {
        places[index] = Place::Arena(slot);
    }
    arena_bytes
}

fn place_views(graph: &FrozenGraph, places: &mut [Place]) {
    for (index, node) in graph.nodes().iter().enumerate() {
        let offset = match node.operation {
            Operation::Output(output) => {
                let source = &graph.nodes()[node.inputs[0]];
                source.outputs[..output].iter().map(|earlier| align(earlier.bytes())).sum()
            }
            _ if node.operation.is_view() || node.operation.updates_state() => 0,
            _ => continue,
        };
        places[index] = match places[node.inputs[0]] {
            Place::Part { of, offset: inner } => Place::Part { of, offset: inner + offset },
            Place::Nowhere => Place::Nowhere,
            Place::Leaf | Place::Cached | Place::Arena(_) => Place::Part { of: node.inputs[0], offset },
        };
    }
}
