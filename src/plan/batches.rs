//! Scheduling: levels of independent operations, bounded in width.

use crate::graph::FrozenGraph;

/// Groups the operations that `runs` selects into batches: all inputs of a batch come from earlier ones.
///
/// An operation runs on the first level where its inputs are ready, so that gradients consume activations early. The
/// exceptions run as late as their readers allow, because they depend on nothing that must first be freed: values made
/// from leaves alone (dropout masks) and recomputed ones. Levels wider than `width` are split, which bounds how many
/// results come alive at once.
///
/// An update of a state waits for everyone who still reads the old value.
pub fn compute_execution_batches(graph: &FrozenGraph, runs: &[bool], width: usize) -> Vec<Vec<usize>> {
    let dependencies = dependencies(graph, runs);
    let levels = levels(graph, runs, &dependencies);
    let count =
        levels.iter().zip(runs).filter(|&(_, &runs)| runs).map(|(&level, _)| level + 1).max().unwrap_or(0);
    let mut by_level: Vec<Vec<usize>> = vec![Vec::new(); count];
    for index in (0..graph.nodes().len()).filter(|&index| runs[index]) {
        by_level[levels[index]].push(index);
    }
    by_level.iter().flat_map(|level| level.chunks(width.max(1)).map(<[usize]>::to_vec)).collect()
}

/// The node whose bytes `index` names: views are followed to what they view, updates to the state they write.
pub fn storage_of(graph: &FrozenGraph, mut index: usize) -> usize {
    while graph.nodes()[index].operation.is_view() || graph.nodes()[index].operation.updates_state() {
        index = graph.nodes()[index].inputs[0];
    }
    index
}

/// For every operation that runs, the operations that must have run.
fn dependencies(graph: &FrozenGraph, runs: &[bool]) -> Vec<Vec<usize>> {
    let nodes = graph.nodes();
    let mut dependencies: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for index in (0..nodes.len()).filter(|&index| runs[index]) {
        for &input in &nodes[index].inputs {
            let producer = graph.producer(input);
            readers[producer].push(index);
            if runs[producer] {
                dependencies[index].push(producer);
            }
        }
    }
    for index in (0..nodes.len()).filter(|&index| runs[index] && nodes[index].operation.updates_state()) {
        let old = graph.producer(nodes[index].inputs[0]);
        dependencies[index].extend(readers[old].iter().filter(|&&reader| reader != index));
    }
    dependencies
}

fn levels(graph: &FrozenGraph, runs: &[bool], dependencies: &[Vec<usize>]) -> Vec<usize> {
    let order = topological(runs, dependencies);
    let mut levels = vec![0; runs.len()];
    let lazy = |index: usize| dependencies[index].is_empty() || graph.nodes()[index].copy != 0;
    for &index in &order {
        // Level 0 stays free for what can be made from leaves.
        let after = dependencies[index].iter().map(|&before| levels[before] + 1).max();
        levels[index] = after.unwrap_or(0).max(usize::from(!lazy(index)));
    }
    let mut latest = vec![usize::MAX; runs.len()];
    for &index in order.iter().rev() {
        if lazy(index) && latest[index] != usize::MAX {
            levels[index] = levels[index].max(latest[index].saturating_sub(1));
        }
        for &before in &dependencies[index] {
            latest[before] = latest[before].min(levels[index]);
        }
    }
    levels
}

/// Update edges may point forward in the arena's order, so it is sorted again.
fn topological(runs: &[bool], dependencies: &[Vec<usize>]) -> Vec<usize> {
    let mut order = Vec::with_capacity(runs.len());
    let mut placed = vec![false; runs.len()];
    for start in (0..runs.len()).filter(|&index| runs[index]) {
        let mut stack = vec![(start, false)];
        while let Some((index, ready)) = stack.pop() {
            if placed[index] {
                continue;
            }
            if ready {
                placed[index] = true;
                order.push(index);
            } else {
                stack.push((index, true));
                stack.extend(dependencies[index].iter().rev().map(|&before| (before, false)));
            }
        }
    }
    order
}

/// Operations that run at every step, as opposed to leaves, views and, where `cached`, what the tensor cache keeps.
pub fn runs_every_step(graph: &FrozenGraph, cached: bool) -> Vec<bool> {
    graph
        .nodes()
        .iter()
        .zip(graph.varies())
        .map(|(node, varies)| (varies || !cached) && node.operation.computes())
        .collect()
}
