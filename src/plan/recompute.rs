//! Chooses which values of the forward pass are computed again for the backward pass instead of being kept.

use super::Plan;
use super::cost::{Cost, cost};
use crate::error::Result;
use crate::graph::{FrozenGraph, Operation};
use crate::passes::{PassReport, rematerialize, report};

/// How much a training step may compute twice to keep less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Recompute {
    /// Everything that is read later is kept.
    #[default]
    Nothing,
    /// What costs little more than reading it back: norms, activation functions, dropout masks.
    Cheap,
    /// The cheapest values first, until the arena has at most so many bytes.
    UntilFits(usize),
}

/// Floating-point operations that a machine does while it moves one byte.
const FLOPS_PER_BYTE: f64 = 8.0;
/// Operations per byte saved up to which recomputing is cheap: a few passes over memory, no matrix product.
const CHEAP: f64 = 48.0;
/// The most operations computed again to get one value.
const LONGEST_CHAIN: usize = 6;

/// What recomputing costs and saves in one step.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Recomputed {
    /// Kernels that run a second time.
    pub operations: usize,
    pub cost: Cost,
    /// Bytes not kept from the forward to the backward pass.
    pub saved_bytes: usize,
}

/// Plans `graph` with the fewest recomputations that `recompute` asks for, or with the smallest arena found.
///
/// # Errors
/// An internal error if the pass fails: a bug.
pub(super) fn smallest_enough(
    graph: FrozenGraph,
    recompute: Recompute,
    plan: impl Fn(FrozenGraph, Option<PassReport>) -> Result<Plan>,
) -> Result<Plan> {
    let limit = match recompute {
        Recompute::Nothing => return plan(graph, None),
        Recompute::Cheap => usize::MAX,
        Recompute::UntilFits(bytes) => bytes,
    };
    let choices = choices(&graph);
    let with = |count: usize| {
        let taken = &choices[..count];
        let marked = marked(&graph, taken);
        let (after, report) = report("rematerialize", &graph, |graph| rematerialize(graph, &marked))?;
        let mut plan = plan(after, Some(report))?;
        plan.recomputed = summary(&graph, taken);
        Ok::<_, crate::error::Error>(plan)
    };
    let cheap = choices.iter().take_while(|choice| choice.price <= CHEAP).count();
    let (mut too_few, mut enough) = (cheap, choices.len());
    let mut best = with(cheap)?;
    if best.arena_bytes <= limit || cheap == choices.len() {
        return Ok(best);
    }
    let all = with(enough)?;
    if all.arena_bytes > limit {
        return Ok(if all.arena_bytes < best.arena_bytes { all } else { best });
    }
    best = all;
    while enough - too_few > 1 {
        let middle = too_few + (enough - too_few) / 2;
        let plan = with(middle)?;
        if plan.arena_bytes <= limit {
            (best, enough) = (plan, middle);
        } else {
            too_few = middle;
        }
    }
    Ok(best)
}

fn marked(graph: &FrozenGraph, choices: &[Choice]) -> Vec<bool> {
    let mut marked = vec![false; graph.nodes().len()];
    choices.iter().flat_map(|choice| &choice.nodes).for_each(|&node| marked[node] = true);
    marked
}

fn summary(graph: &FrozenGraph, choices: &[Choice]) -> Recomputed {
    let nodes = choices.iter().flat_map(|choice| &choice.nodes);
    Recomputed {
        operations: nodes.clone().count(),
        cost: nodes.map(|&node| cost(graph, node)).sum(),
        saved_bytes: choices.iter().map(|choice| choice.bytes).sum(),
    }
}

/// A value, and all that has to run again to get it.
#[derive(Debug, Clone)]
struct Choice {
    nodes: Vec<usize>,
    /// Floating-point operations, or their equivalent in traffic, for each byte saved.
    price: f64,
    bytes: usize,
}

/// Values worth recomputing, cheapest first. Each choice supposes that the ones before it are taken.
fn choices(graph: &FrozenGraph) -> Vec<Choice> {
    let Some(&loss) = graph.roots().first() else { return Vec::new() };
    let search = Search::new(graph, graph.ancestors(loss));
    let mut chosen = vec![false; graph.nodes().len()];
    let mut choices = Vec::new();
    loop {
        // A choice changes what later ones have to compute, so prices are asked for again.
        let open = (0..graph.nodes().len()).filter(|&index| search.is_kept(index) && !chosen[index]);
        let priced = open.filter_map(|index| search.price(index, &chosen));
        let mut round: Vec<Choice> = priced.collect();
        round.sort_by(|a, b| a.price.total_cmp(&b.price).then(a.nodes.cmp(&b.nodes)));
        let cheapest = round.first().map_or(f64::INFINITY, |choice| choice.price);
        // Equal layers have equal prices: they are taken together.
        round.retain(|choice| choice.price <= cheapest * 1.01);
        if round.is_empty() {
            return choices;
        }
        for choice in round {
            choice.nodes.iter().for_each(|&index| chosen[index] = true);
            choices.push(choice);
        }
    }
}

struct Search<'a> {
    graph: &'a FrozenGraph,
    forward: Vec<bool>,
    varies: Vec<bool>,
    /// Whether anything outside of the forward pass reads the node, or a view of it.
    read_late: Vec<bool>,
}

impl<'a> Search<'a> {
    fn new(graph: &'a FrozenGraph, forward: Vec<bool>) -> Self {
        let mut read_late = vec![false; graph.nodes().len()];
        for (index, node) in graph.nodes().iter().enumerate() {
            for &input in node.inputs.iter().filter(|_| !forward[index] && !node.operation.is_view()) {
                read_late[graph.producer(input)] = true;
            }
        }
        Self { graph, forward, varies: graph.varies(), read_late }
    }

    /// Whether the value lies in memory from the forward to the backward pass.
    fn is_kept(&self, index: usize) -> bool {
        self.forward[index] && self.varies[index] && self.read_late[index] && self.may_run_twice(index)
    }

    fn may_run_twice(&self, index: usize) -> bool {
        let operation = &self.graph.nodes()[index].operation;
        let is_loss = matches!(
            operation,
            Operation::ProjectedCrossEntropy { .. } | Operation::ProjectedCrossEntropyGrad { .. }
        );
        operation.computes() && !operation.updates_state() && !is_loss
    }

    /// `None` where too much would have to run again.
    fn price(&self, index: usize, chosen: &[bool]) -> Option<Choice> {
        let mut nodes = Vec::new();
        self.collect(index, chosen, &mut nodes)?;
        let bytes: usize = self.graph.nodes()[index].outputs.iter().map(|output| output.bytes()).sum();
        // What earlier choices compute again anyway is not paid for twice.
        let cost: Cost = nodes.iter().filter(|&&n| !chosen[n]).map(|&n| cost(self.graph, n)).sum();
        let price = (cost.flops + FLOPS_PER_BYTE * cost.bytes) / bytes.max(1) as f64;
        nodes.retain(|&node| !chosen[node]);
        Some(Choice { nodes, price, bytes })
    }

    /// The node and, before it, every input that is not there in the backward pass.
    fn collect(&self, index: usize, chosen: &[bool], nodes: &mut Vec<usize>) -> Option<()> {
        if nodes.contains(&index) {
            return Some(());
        }
        if !self.may_run_twice(index) {
            return None;
        }
        for &input in &self.graph.nodes()[index].inputs {
            let input = self.graph.producer(input);
            let kept = self.read_late[input] && !chosen[input];
            if self.varies[input] && self.graph.nodes()[input].operation.computes() && !kept {
                self.collect(input, chosen, nodes)?;
            }
        }
        nodes.push(index);
        (nodes.len() <= LONGEST_CHAIN).then_some(())
    }
}
