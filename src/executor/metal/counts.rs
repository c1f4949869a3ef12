//! What a step asks of Metal's command queue, counted without a GPU.

use std::collections::HashSet;
use std::fmt;

use super::program::{Command, Program};
use crate::graph::{Binary, FrozenNode, Operation};
use crate::plan::{Plan, storage_of};

/// Calls of `command_encoder` after which candle commits a command buffer, unless its environment variable says
/// otherwise.
pub const DISPATCHES_PER_BUFFER: usize = 50;

/// One step's dispatches and what orders them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Dispatches {
    /// Kernels of our own.
    pub kernels: usize,
    /// candle's products of matrices.
    pub products: usize,
    /// candle's other kernels; programs have none.
    pub plain: usize,
    /// Copies and fills. Each ends the encoder that kernels are in.
    pub blits: usize,
    pub barriers: usize,
    pub encoders: usize,
    pub command_buffers: usize,
    /// How often the host waits until the GPU is done.
    pub host_waits: usize,
}

impl Dispatches {
    /// A replay of a program. Reading losses waits once more, at every logging interval.
    pub fn of(program: &Program) -> Self {
        let mut counts = Self::default();
        for recorded in &program.commands {
            match recorded.command {
                Command::Launch { .. } => counts.kernels += 1,
                Command::Product { .. } => counts.products += 1,
                Command::Barrier => counts.barriers += 1,
                Command::Commit => counts.command_buffers += 1,
            }
        }
        counts.encoders = counts.command_buffers;
        counts
    }

    /// candle's operations one by one, for a plan of plain operations, as candle 0.11's source dispatches them; memory
    /// that its pool gives out again adds barriers that are not counted.
    pub fn eager(plan: &Plan) -> Self {
        let mut eager = Eager::default();
        for &index in plan.batches.iter().flatten() {
            eager.operation(plan, index);
        }
        let mut counts = eager.counts;
        let commands = counts.products + counts.plain + counts.blits;
        counts.command_buffers = commands.div_ceil(DISPATCHES_PER_BUFFER);
        counts.encoders = counts.command_buffers + 2 * counts.blits;
        // Once for the step, and once for each value that is read: each has its own copy and its own wait.
        counts.host_waits = 1 + plan.read_back;
        counts
    }
}

impl fmt::Display for Dispatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernels, products, plain, blits, barriers, encoders, command_buffers, host_waits } = self;
        write!(f, "{kernels} kernels, {products} products, {plain} plain operations, {blits} copies, ")?;
        write!(f, "{barriers} barriers, {encoders} encoders, {command_buffers} command buffers, ")?;
        write!(f, "{host_waits} host waits")
    }
}

/// Dispatches and copies of one operation.
#[derive(Debug, Clone, Copy)]
struct Shares {
    products: usize,
    plain: usize,
    blits: usize,
}

/// Telling ignored ids apart: a comparison, zeros, a choice, a cast.
const KNOWN: Shares = Shares { products: 0, plain: 3, blits: 1 };

fn shares(node: &FrozenNode) -> Shares {
    let plain = |plain| Shares { products: 0, plain, blits: 0 };
    let known = |plain, blits| Shares { plain: KNOWN.plain + plain, blits: KNOWN.blits + blits, ..KNOWN };
    match &node.operation {
        Operation::MatMul { transpose_left, transpose_right, widen } => {
            // Transposed sides are copied first, narrow ones cast.
            let copies =
                usize::from(*transpose_left) + usize::from(*transpose_right) + 2 * usize::from(*widen);
            Shares { products: 1, plain: copies, blits: 0 }
        }
        Operation::Binary(Binary::Minimum | Binary::Equal) => plain(2),
        Operation::Slice { axis: 0, .. } => plain(0),
        Operation::Concat { axis: 0 } => Shares { products: 0, plain: 0, blits: node.inputs.len() },
        Operation::Concat { .. } => plain(node.inputs.len()),
        // A selection and a product with the mask; scattering begins with zeros, and with a copy of them.
        Operation::Embedding | Operation::TakeLast => known(2, 0),
        Operation::ScatterRows { .. } => known(2, 3),
        Operation::ScatterLast { .. } => known(2, 2),
        // The value takes the state's place; masks come from the host.
        Operation::Assign
        | Operation::AttentionMask { .. }
        | Operation::CacheMask { .. }
        | Operation::DropoutMask { .. } => plain(0),
        _ => plain(1),
    }
}

/// candle's tracking of hazards, which goes by buffers: one for each value.
#[derive(Debug, Default)]
struct Eager {
    counts: Dispatches,
    commands: usize,
    read: HashSet<usize>,
    written: HashSet<usize>,
}

impl Eager {
    fn operation(&mut self, plan: &Plan, index: usize) {
        let node = &plan.graph.nodes()[index];
        let Shares { products, plain, blits } = shares(node);
        self.counts.products += products;
        self.counts.plain += plain;
        self.counts.blits += blits;
        let before = self.commands / DISPATCHES_PER_BUFFER;
        self.commands += products + plain + blits;
        if blits > 0 || self.commands / DISPATCHES_PER_BUFFER > before {
            self.read.clear();
            self.written.clear();
        }
        let inputs = node.inputs.iter().map(|&input| storage_of(&plan.graph, input));
        if inputs.clone().any(|input| self.written.contains(&input)) {
            self.counts.barriers += 1;
            self.read.clear();
            self.written.clear();
        }
        // Dispatches of one operation follow each other.
        self.counts.barriers += (products + plain).saturating_sub(1);
        self.read.extend(inputs);
        self.written.insert(index);
    }
}
