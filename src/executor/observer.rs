//! The hook into the run loop: profiles, debuggers and the dashboard look at a step through it.

use std::time::Duration;

use crate::graph::Operation;
use crate::plan::Plan;

/// Called by the run loop around its work. The default does nothing.
pub trait Observer: Send {
    /// Whether operations shall run one by one, so that each can be timed.
    fn one_by_one(&self) -> bool {
        false
    }

    fn batch_done(&mut self, _plan: &Plan, _batch: usize, _took: Duration) {}

    /// Called only where operations run one by one.
    fn operation_done(&mut self, _plan: &Plan, _index: usize, _took: Duration) {}
}

/// Looks at nothing.
#[derive(Debug, Default, Clone, Copy)]
pub struct Unobserved;

impl Observer for Unobserved {}

/// Runs operations one at a time: the reference that parallel execution has to equal bit for bit.
#[derive(Debug, Default, Clone, Copy)]
pub struct Sequential;

impl Observer for Sequential {
    fn one_by_one(&self) -> bool {
        true
    }
}

/// Time and calls by kind of operation.
#[derive(Debug, Default)]
pub struct Profile {
    /// Kind, calls, time, floating-point operations and bytes.
    pub rows: Vec<ProfileRow>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ProfileRow {
    pub kind: String,
    pub calls: u64,
    pub time: Duration,
    pub flops: f64,
    pub bytes: f64,
}

impl Observer for Profile {
    fn one_by_one(&self) -> bool {
        true
    }

    fn operation_done(&mut self, plan: &Plan, index: usize, took: Duration) {
        let kind = kind_of(&plan.graph.nodes()[index].operation);
        let cost = crate::plan::cost(&plan.graph, index);
        let at = self.rows.iter().position(|row| row.kind == kind).unwrap_or_else(|| {
            self.rows.push(ProfileRow { kind, calls: 0, time: Duration::ZERO, flops: 0.0, bytes: 0.0 });
            self.rows.len() - 1
        });
        let row = &mut self.rows[at];
        row.calls += 1;
        row.time += took;
        row.flops += cost.flops;
        row.bytes += cost.bytes;
    }
}

/// The operation's name without its attributes.
pub fn kind_of(operation: &Operation) -> String {
    let full = format!("{operation:?}");
    full.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
}
