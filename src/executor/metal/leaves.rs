//! Where weights, states and constants lie: the same for all plans of a device.

use std::collections::{HashMap, HashSet};

use super::program::{Buffer, Region};
use crate::error::{Error, Result};
use crate::executor::tensor_cache::CacheKey;
use crate::graph::{FrozenNode, Operation};
use crate::plan::{Place, Plan, align, storage_of};

/// Places of leaves by name, and of constants by how they are computed.
#[derive(Debug, Default)]
pub struct Leaves {
    /// Bytes of each [`Buffer::Leaf`].
    pub buffers: Vec<usize>,
    named: HashMap<String, Region>,
    constants: HashMap<CacheKey, Region>,
    /// For a buffer with parameters, those with their first and second moments: laid out alike, so that one kernel
    /// updates all parameters.
    moments: HashMap<usize, [usize; 2]>,
}

fn name(node: &FrozenNode) -> Option<&str> {
    match &node.operation {
        Operation::Frozen(name) | Operation::State(name) => Some(name),
        _ => None,
    }
}

impl Leaves {
    pub fn named(&self, name: &str) -> Option<Region> {
        self.named.get(name).copied()
    }

    /// Makes room for another value under this name when a plan next asks for it. Returns the buffer that it was in, if
    /// that holds nothing else.
    pub fn forget(&mut self, name: &str) -> Option<usize> {
        let Region { buffer: Buffer::Leaf(buffer), .. } = self.named.remove(name)? else { return None };
        let held = |region: &Region| region.buffer == Buffer::Leaf(buffer);
        let used = self.named.values().chain(self.constants.values()).any(held);
        let kept = self.moments.iter().any(|(of, [first, second])| [of, first, second].contains(&&buffer));
        (!used && !kept).then_some(buffer)
    }

    /// The leaf or constant of a node has no place any more.
    pub fn forget_node(&mut self, node: &FrozenNode, key: &CacheKey) {
        match name(node) {
            Some(name) => drop(self.named.remove(name)),
            None => drop(self.constants.remove(key)),
        }
    }

    /// Where the leaf or constant of a plan lies.
    ///
    /// # Errors
    /// An internal error if [`Self::place`] did not place it.
    pub fn region(&self, plan: &Plan, index: usize, key: &CacheKey) -> Result<Region> {
        let node = &plan.graph.nodes()[index];
        let region = name(node).map_or_else(|| self.constants.get(key), |name| self.named.get(name));
        let region = region.ok_or_else(|| Error::internal(format!("{:?} was not placed", node.operation)))?;
        let bytes: usize = node.outputs.iter().map(|output| align(output.bytes())).sum();
        if align(region.bytes) != bytes {
            return Err(Error::internal(format!("{:?} changed its size", node.operation)));
        }
        Ok(*region)
    }

    /// Places what a plan reads; `keys` name the values of its nodes. Returns the nodes that were placed just now, and
    /// whose values nobody has written yet.
    pub fn place(&mut self, plan: &Plan, keys: &[CacheKey]) -> Vec<usize> {
        let nodes = plan.graph.nodes();
        let mut fresh = Vec::new();
        let mut states = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            let bytes: usize = node.outputs.iter().map(|output| align(output.bytes())).sum();
            match (plan.places[index], &node.operation) {
                (Place::Leaf, Operation::Frozen(name)) if !self.named.contains_key(name.as_ref()) => {
                    let region = self.buffer(bytes);
                    self.named.insert(name.to_string(), region);
                    fresh.push(index);
                }
                (Place::Leaf, Operation::State(name)) if !self.named.contains_key(name.as_ref()) => {
                    states.push(index);
                }
                (Place::Cached, _) if !self.constants.contains_key(&keys[index]) => {
                    let region = self.buffer(bytes);
                    self.constants.insert(keys[index], region);
                    fresh.push(index);
                }
                _ => {}
            }
        }
        self.place_states(plan, &states);
        fresh.extend(states);
        fresh
    }

    fn buffer(&mut self, bytes: usize) -> Region {
        self.buffers.push(bytes);
        Region { buffer: Buffer::Leaf(self.buffers.len() - 1), offset: 0, bytes }
    }

    /// Parameters lie one after the other in a buffer, states that are overwritten in another, and moments in two that
    /// are laid out like that of their parameters.
    fn place_states(&mut self, plan: &Plan, states: &[usize]) {
        let nodes = plan.graph.nodes();
        let mut moments: HashMap<usize, (usize, usize)> = HashMap::new();
        let mut overwritten: HashSet<usize> = HashSet::new();
        for node in nodes {
            let leaf = |input: usize| storage_of(&plan.graph, node.inputs[input]);
            match node.operation {
                Operation::AdamW(_) => {
                    moments.extend([(leaf(2), (leaf(0), 0)), (leaf(3), (leaf(0), 1))]);
                }
                Operation::Assign | Operation::WriteRows => {
                    overwritten.insert(leaf(0));
                }
                _ => {}
            }
        }
        let (in_place, others): (Vec<usize>, Vec<usize>) = states
            .iter()
            .filter(|index| !moments.contains_key(index))
            .partition(|&i| overwritten.contains(i));
        self.line_up(plan, &others);
        self.line_up(plan, &in_place);
        for index in states {
            let Some(&(parameter, which)) = moments.get(index) else { continue };
            let place = name(&nodes[parameter]).and_then(|name| self.named(name));
            let region = place.and_then(|region| self.beside(region, which));
            let region = region.unwrap_or_else(|| self.buffer(align(nodes[*index].tensor_type().bytes())));
            self.named.extend(name(&nodes[*index]).map(|name| (name.to_owned(), region)));
        }
    }

    fn line_up(&mut self, plan: &Plan, states: &[usize]) {
        if states.is_empty() {
            return;
        }
        let mut whole = self.buffer(0);
        for &index in states {
            let node = &plan.graph.nodes()[index];
            let bytes = align(node.tensor_type().bytes());
            let region = whole.part(whole.bytes, bytes);
            whole.bytes += bytes;
            self.named.extend(name(node).map(|name| (name.to_owned(), region)));
        }
        if let Some(bytes) = self.buffers.last_mut() {
            *bytes = whole.bytes;
        }
    }

    /// The region of a moment, beside that of its parameter.
    fn beside(&mut self, parameter: Region, which: usize) -> Option<Region> {
        let Buffer::Leaf(buffer) = parameter.buffer else { return None };
        let bytes = self.buffers[buffer];
        let next = self.buffers.len();
        let moments = *self.moments.entry(buffer).or_insert([next, next + 1]);
        if moments[0] == next {
            self.buffers.extend([bytes, bytes]);
        }
        Some(Region { buffer: Buffer::Leaf(moments[which]), ..parameter })
    }
}
