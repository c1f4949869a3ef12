//! Graph in, graph out: each pass keeps every root's value and makes it cheaper.

pub mod decompose;
mod fuse;
mod join;
mod layout;
mod merge;
mod rematerialize;
mod rewriter;
mod simplify;

use std::time::{Duration, Instant};

use crate::error::Result;
use crate::graph::FrozenGraph;

pub use decompose::decompose;
pub use fuse::fuse;
pub use join::join;
pub use layout::layout;
pub use merge::merge;
pub use rematerialize::rematerialize;
pub use simplify::simplify;

/// A pass with the name that logs and the `plan` command show.
#[derive(Clone, Copy)]
pub struct Pass {
    pub name: &'static str,
    pub run: fn(&FrozenGraph) -> Result<FrozenGraph>,
}

pub const SIMPLIFY: Pass = Pass { name: "simplify", run: simplify };
pub const FUSE: Pass = Pass { name: "fuse", run: fuse };
pub const MERGE: Pass = Pass { name: "merge", run: merge };
pub const JOIN: Pass = Pass { name: "join", run: join };
pub const LAYOUT: Pass = Pass { name: "layout", run: layout };

/// What one pass did.
#[derive(Debug, Clone)]
pub struct PassReport {
    pub name: &'static str,
    pub operations_before: usize,
    pub operations_after: usize,
    pub took: Duration,
}

/// Runs passes in order.
///
/// # Errors
/// An internal error if a pass builds something that does not fit: a bug.
pub fn run(graph: FrozenGraph, passes: &[Pass]) -> Result<(FrozenGraph, Vec<PassReport>)> {
    let mut reports = Vec::with_capacity(passes.len());
    let mut graph = graph;
    for pass in passes {
        let (after, report) = report(pass.name, &graph, pass.run)?;
        reports.push(report);
        graph = after;
    }
    Ok((graph, reports))
}

/// Runs one pass and tells what it did.
///
/// # Errors
/// Whatever `run` returns.
pub fn report(
    name: &'static str,
    graph: &FrozenGraph,
    run: impl Fn(&FrozenGraph) -> Result<FrozenGraph>,
) -> Result<(FrozenGraph, PassReport)> {
    let start = Instant::now();
    let after = run(graph)?;
    let report = PassReport {
        name,
        operations_before: operations(graph),
        operations_after: operations(&after),
        took: start.elapsed(),
    };
    Ok((after, report))
}

/// Nodes that compute something: not leaves, and not the selection of an output.
pub fn operations(graph: &FrozenGraph) -> usize {
    graph.nodes().iter().filter(|node| node.operation.computes()).count()
}
