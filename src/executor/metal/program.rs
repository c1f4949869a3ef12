//! A step as commands over buffers.

use std::ops::Range;

use crate::kernels::metal::Element;
use crate::kernels::metal::launch::Launch;

/// Names a buffer of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Buffer {
    /// Weights, states and constants, which plans share.
    Leaf(usize),
    /// What the host writes before the step.
    Inputs,
    /// What the host reads after the step.
    Output(usize),
    /// Tables that kernels read and no step changes.
    Tables,
    /// Intermediate values; one after the other may lie in it. Programs that do not run at once share them.
    Own(usize),
}

/// Bytes of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Region {
    pub buffer: Buffer,
    pub offset: usize,
    pub bytes: usize,
}

impl Region {
    pub fn end(&self) -> usize {
        self.offset + self.bytes
    }

    pub fn overlaps(&self, other: &Self) -> bool {
        self.buffer == other.buffer && self.offset < other.end() && other.offset < self.end()
    }

    /// `bytes` of them, `offset` bytes from their start.
    #[must_use]
    pub fn part(&self, offset: usize, bytes: usize) -> Self {
        Self { buffer: self.buffer, offset: self.offset + offset, bytes }
    }

    /// What remains from a byte on.
    #[must_use]
    pub fn after(&self, offset: usize) -> Self {
        self.part(offset, self.bytes.saturating_sub(offset))
    }
}

/// Whose bytes a command reads or writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Holder {
    /// The value of the node that views lead to.
    Node(usize),
    /// Scratch memory of a node, by its number.
    Scratch(usize, usize),
    Table,
}

/// What a command does to a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Touch {
    pub region: Region,
    pub holder: Holder,
    /// Whether it may write there; it may read there in any case.
    pub writes: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// A kernel and what it is bound to, in the order of its interface, but for its spec.
    Launch { launch: Launch, element: Element, head_dim: usize, bindings: Vec<Region> },
    /// y [rows, columns] = left [rows, depth], or left [depth, rows]^T where `transpose_left`, times right
    /// [columns, depth]^T, or right [depth, columns] where not `transpose_right`. `y` begins its buffer.
    Product {
        element: Element,
        left: Region,
        right: Region,
        y: Region,
        transpose_left: bool,
        transpose_right: bool,
        extents: [usize; 3],
    },
    /// What follows waits for what came before.
    Barrier,
    /// The command buffer ends here: what follows waits, too.
    Commit,
}

/// A command and whom it works for.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    pub command: Command,
    /// The node of the plan, the last one where a command works for several.
    pub operation: usize,
    pub touches: Vec<Touch>,
}

/// A plan for Metal. Commands between two barriers are independent of each other.
#[derive(Debug, Clone, Default)]
pub struct Program {
    /// Bytes of each [`Buffer::Own`], the largest first.
    pub buffers: Vec<usize>,
    pub tables: Vec<u8>,
    pub input_bytes: usize,
    /// Bytes of each [`Buffer::Output`].
    pub outputs: Vec<usize>,
    pub commands: Vec<Recorded>,
    /// The commands of each batch of the plan.
    pub batches: Vec<Range<usize>>,
    /// Where the value of each node is, if it has memory.
    pub regions: Vec<Option<Region>>,
}

impl Program {
    /// Bytes of intermediate values, and of what the host writes and reads.
    pub fn bytes(&self) -> usize {
        self.buffers.iter().chain(&self.outputs).sum::<usize>() + self.input_bytes
    }

    /// The batches of each command buffer.
    pub fn command_buffers(&self) -> Vec<Range<usize>> {
        let ends = |&batch: &usize| {
            let commands = &self.commands[self.batches[batch].clone()];
            matches!(commands.last(), Some(Recorded { command: Command::Commit, .. }))
        };
        let mut buffers = Vec::new();
        let mut start = 0;
        for end in (0..self.batches.len()).filter(ends) {
            buffers.push(start..end + 1);
            start = end + 1;
        }
        buffers
    }
}
