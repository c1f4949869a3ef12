//! Where everything lies that the commands of a plan touch.

use std::collections::{HashMap, HashSet};

use super::leaves::Leaves;
use super::lowered::Lowered;
use super::program::{Buffer, Region};
use super::sharing::{Lifetime, share};
use crate::error::{Error, Result};
use crate::executor::tensor_cache::CacheKey;
use crate::graph::Operation;
use crate::plan::{Place, Plan, align, storage_of};

/// The places of a plan's values.
pub(super) struct Layout {
    /// By node; an operation's first output where it has several.
    pub regions: Vec<Option<Region>>,
    /// By node, for each piece of its scratch memory.
    pub scratch: HashMap<usize, Vec<Region>>,
    /// Bytes of each [`Buffer::Own`].
    pub buffers: Vec<usize>,
    pub input_bytes: usize,
    /// Bytes of each [`Buffer::Output`].
    pub outputs: Vec<usize>,
    /// The batch that all updates of parameters wait for, so that one dispatch does them.
    pub last_update: Option<usize>,
}

/// Larger values are copied when the host reads them, instead of lying in memory that it sees for each step in flight.
const MOST_OUTPUT_BYTES: usize = 1 << 16;

/// What a lifetime belongs to.
enum Owner {
    Node(usize),
    /// Scratch memory of a node with its bytes.
    Scratch(usize, usize),
    /// Gradients of parameters, each with its offset: side by side, so that one kernel reads all.
    Gradients(Vec<(usize, usize)>),
}

impl Layout {
    pub fn new(plan: &Plan, batches: &[Vec<Lowered>], leaves: &Leaves, keys: &[CacheKey]) -> Result<Self> {
        let last_update = last_update(plan);
        let mut layout = Self {
            regions: vec![None; plan.graph.nodes().len()],
            scratch: HashMap::new(),
            buffers: Vec::new(),
            input_bytes: 0,
            outputs: Vec::new(),
            last_update,
        };
        layout.place_outputs(plan);
        layout.place_intermediates(plan, batches);
        for (index, node) in plan.graph.nodes().iter().enumerate() {
            let bytes = node.tensor_type().bytes();
            match plan.places[index] {
                Place::Leaf | Place::Cached => {
                    layout.regions[index] = Some(leaves.region(plan, index, &keys[index])?.part(0, bytes));
                }
                Place::Part { of, offset } => {
                    layout.regions[index] = layout.regions[of].map(|region| region.part(offset, bytes));
                }
                Place::Arena(_) if matches!(node.operation, Operation::Input(_)) => {
                    let offset = layout.input_bytes;
                    layout.regions[index] = Some(Region { buffer: Buffer::Inputs, offset, bytes });
                    layout.input_bytes += align(bytes);
                }
                Place::Arena(_) | Place::Nowhere => {}
            }
        }
        Ok(layout)
    }

    pub fn region(&self, index: usize) -> Result<Region> {
        self.regions[index].ok_or_else(|| Error::internal(format!("node %{index} has no memory")))
    }

    /// Values that the host reads have buffers that it sees.
    fn place_outputs(&mut self, plan: &Plan) {
        for &root in &plan.graph.roots()[..plan.read_back] {
            let index = storage_of(&plan.graph, root);
            let Place::Arena(slot) = plan.places[index] else { continue };
            let computed = plan.graph.nodes()[index].operation.computes();
            if computed && slot.bytes <= MOST_OUTPUT_BYTES && self.regions[index].is_none() {
                let buffer = Buffer::Output(self.outputs.len());
                self.place(plan, index, Region { buffer, offset: 0, bytes: slot.bytes });
                self.outputs.push(slot.bytes);
            }
        }
    }

    /// Values and scratch memory share buffers as their lifetimes allow, in units of batches: within a batch all are alive,
    /// because its operations take turns.
    fn place_intermediates(&mut self, plan: &Plan, batches: &[Vec<Lowered>]) {
        let mut owners = Vec::new();
        let mut lives = Vec::new();
        let gradients = gradients(plan, batches);
        let fed = read_by_updates(plan, 0..7);
        let mut side_by_side = Lifetime { bytes: 0, first: usize::MAX, last: 0 };
        let mut members = Vec::new();
        for (batch, operations) in batches.iter().enumerate() {
            for operation in operations {
                for &index in operation.nodes.iter().filter(|&&index| self.regions[index].is_none()) {
                    let Place::Arena(slot) = plan.places[index] else { continue };
                    let waits = self.last_update.filter(|_| fed.contains(&index));
                    let last = slot.last.max(waits.unwrap_or(0));
                    if gradients.contains(&index) {
                        members.push((index, side_by_side.bytes));
                        side_by_side.bytes += align(slot.bytes);
                        side_by_side.first = side_by_side.first.min(slot.first);
                        side_by_side.last = side_by_side.last.max(last);
                    } else {
                        owners.push(Owner::Node(index));
                        lives.push(Lifetime { bytes: align(slot.bytes), first: slot.first, last });
                    }
                }
                for &bytes in &operation.lowering.scratch {
                    owners.push(Owner::Scratch(operation.nodes[0], bytes));
                    lives.push(Lifetime { bytes: align(bytes.max(1)), first: batch, last: batch });
                }
            }
        }
        if !members.is_empty() {
            owners.push(Owner::Gradients(members));
            lives.push(side_by_side);
        }
        let (buffers, of) = share(&lives);
        self.buffers = buffers;
        for ((owner, life), buffer) in owners.into_iter().zip(lives).zip(of) {
            let region = Region { buffer: Buffer::Own(buffer), offset: 0, bytes: life.bytes };
            match owner {
                Owner::Node(index) => self.place(plan, index, region),
                Owner::Scratch(index, bytes) => {
                    self.scratch.entry(index).or_default().push(region.part(0, bytes));
                }
                Owner::Gradients(members) => {
                    for (index, offset) in members {
                        self.place(plan, index, region.after(offset));
                    }
                }
            }
        }
    }

    fn place(&mut self, plan: &Plan, index: usize, region: Region) {
        self.regions[index] = Some(region.part(0, plan.graph.nodes()[index].tensor_type().bytes()));
    }
}

/// What updates read as the given inputs.
fn read_by_updates(plan: &Plan, inputs: std::ops::Range<usize>) -> HashSet<usize> {
    let updates = plan.graph.nodes().iter().filter(|node| matches!(node.operation, Operation::AdamW(_)));
    updates
        .flat_map(|node| &node.inputs[inputs.clone()])
        .map(|&input| storage_of(&plan.graph, input))
        .collect()
}

/// Gradients that updates read, but for those that have to begin a buffer or are one of several outputs.
fn gradients(plan: &Plan, batches: &[Vec<Lowered>]) -> HashSet<usize> {
    let begins = batches.iter().flatten().filter(|lowered| lowered.product());
    let begins: HashSet<usize> = begins.flat_map(|lowered| lowered.nodes.iter().copied()).collect();
    let mut gradients = read_by_updates(plan, 1..2);
    gradients.retain(|index| plan.graph.nodes()[*index].outputs.len() == 1 && !begins.contains(index));
    gradients
}

/// The last batch with an update, unless an operation reads what an update leaves.
fn last_update(plan: &Plan) -> Option<usize> {
    let nodes = plan.graph.nodes();
    let updates = |index: usize| matches!(nodes[plan.graph.producer(index)].operation, Operation::AdamW(_));
    let waits = |&index: &usize| nodes[index].inputs.iter().any(|&input| updates(input));
    if plan.batches.iter().flatten().any(waits) {
        return None;
    }
    let has =
        |batch: &Vec<usize>| batch.iter().any(|&index| matches!(nodes[index].operation, Operation::AdamW(_)));
    plan.batches.iter().rposition(has)
}
