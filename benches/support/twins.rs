//! The insert path of `ComputationGraph` over two kinds of maps.
//!
//! Both twins do what `ComputationGraph` does once the types of a node are known: look the node up among the interned
//! ones, and if it is missing, give it the next number and keep it. They differ in the maps alone.

use std::collections::HashMap;
use std::collections::hash_map::Entry as LockedEntry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use lazytune::graph::{FrozenGraph, FrozenNode, Operation};

/// A graph that only grows.
pub trait Interner: Default + Sync {
    /// The number of `node`, which is kept if no equal one is.
    fn insert(&self, node: FrozenNode) -> usize;

    fn len(&self) -> usize;
}

/// Two hash maps, each behind its lock.
#[derive(Default)]
pub struct LockedGraph {
    nodes: RwLock<HashMap<usize, FrozenNode>>,
    interned: RwLock<HashMap<FrozenNode, usize>>,
    next_node_id: AtomicUsize,
}

impl Interner for LockedGraph {
    fn insert(&self, node: FrozenNode) -> usize {
        let mut interned = self.interned.write().unwrap_or_else(PoisonError::into_inner);
        match interned.entry(node) {
            LockedEntry::Occupied(known) => *known.get(),
            LockedEntry::Vacant(free) => {
                let id = self.next_node_id.fetch_add(1, Ordering::Relaxed);
                let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
                nodes.insert(id, free.key().clone());
                *free.insert(id)
            }
        }
    }

    fn len(&self) -> usize {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// Two sharded maps.
#[derive(Default)]
pub struct ShardedGraph {
    nodes: DashMap<usize, FrozenNode>,
    interned: DashMap<FrozenNode, usize>,
    next_node_id: AtomicUsize,
}

impl Interner for ShardedGraph {
    fn insert(&self, node: FrozenNode) -> usize {
        match self.interned.entry(node) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(free) => {
                let id = self.next_node_id.fetch_add(1, Ordering::Relaxed);
                self.nodes.insert(id, free.key().clone());
                free.insert(id);
                id
            }
        }
    }

    fn len(&self) -> usize {
        self.nodes.len()
    }
}

/// The same nodes for micro-batch `part` of several: weights and states are shared, the inputs are its own.
pub fn micro_batch(graph: &FrozenGraph, part: usize) -> Vec<FrozenNode> {
    let mut nodes = graph.nodes().to_vec();
    for node in &mut nodes {
        if let Operation::Input(name) = &node.operation {
            node.operation = Operation::Input(format!("{name}.{part}").into());
        }
    }
    nodes
}

/// Inserts all nodes, whose inputs are positions in `nodes`, as one thread of a builder would.
pub fn replay(graph: &impl Interner, nodes: &[FrozenNode]) {
    let mut ids = Vec::with_capacity(nodes.len());
    for node in nodes {
        let inputs = node.inputs.iter().map(|&input| ids[input]).collect();
        ids.push(graph.insert(FrozenNode { inputs, ..node.clone() }));
    }
}
