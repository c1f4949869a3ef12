//! From a plan to a program.

use super::hazards::Hazards;
use super::joined::{Chunked, is_chunked, join, table_binding};
use super::layout::Layout;
use super::leaves::Leaves;
use super::lowered::{Lowered, lower_batch};
use super::program::{Buffer, Command, Holder, Program, Recorded, Region, Touch};
use crate::error::{Error, Result};
use crate::executor::tensor_cache::CacheKey;
use crate::graph::Operation;
use crate::kernels::metal::lower::{Bound, Lowering, Place, Step};
use crate::kernels::metal::{Access, Chunk, INTERFACES};
use crate::plan::{Plan, align, cost, storage_of};

/// Arithmetic and traffic that any GPU with Metal is taken to be capable of, each second: about half of what the
/// smallest Apple silicon reaches.
const FLOPS: f64 = 1e12;
const BYTES: f64 = 4e10;

/// Seconds that a command buffer may be estimated to take, unless something else is asked for. While a display is on,
/// macOS ends those that take several.
pub const SECONDS_PER_BUFFER: f64 = 1.0;

/// The program of a plan that has a device for itself.
///
/// # Errors
/// As for [`record`].
pub fn record_alone(plan: &Plan, seconds: f64) -> Result<Program> {
    let keys = plan.graph.value_fingerprints();
    let mut leaves = Leaves::default();
    leaves.place(plan, &keys);
    record(plan, &leaves, &keys, seconds)
}

/// Records what `plan` does. Command buffers end before they are estimated to take longer than `seconds`, where the
/// plan lets them. `leaves` has places for what the plan reads; `keys` name the values of its nodes.
///
/// # Errors
/// A device error if an operation is too large for its kernel.
pub fn record(plan: &Plan, leaves: &Leaves, keys: &[CacheKey], seconds: f64) -> Result<Program> {
    let batches = plan.batches.iter().map(|batch| lower_batch(plan, batch));
    let batches = batches.collect::<Result<Vec<Vec<Lowered>>>>()?;
    let layout = Layout::new(plan, &batches, leaves, keys)?;
    let mut recorder = Recorder {
        plan,
        layout: &layout,
        hazards: Hazards::default(),
        commands: Vec::new(),
        tables: Vec::new(),
        updates: Vec::new(),
    };
    let mut ranges = Vec::with_capacity(batches.len());
    let mut spent = 0.0;
    for (batch, operations) in batches.iter().enumerate() {
        let start = recorder.commands.len();
        recorder.batch(batch, operations)?;
        spent += estimate(plan, batch);
        let next = (batch + 1 < batches.len()).then(|| estimate(plan, batch + 1));
        if next.is_none_or(|next| spent + next > seconds) {
            recorder.emit(Recorded { command: Command::Commit, operation: 0, touches: vec![] });
            spent = 0.0;
        }
        ranges.push(start..recorder.commands.len());
    }
    let Recorder { commands, tables, .. } = recorder;
    let Layout { regions, buffers, input_bytes, outputs, .. } = layout;
    Ok(Program { buffers, tables, input_bytes, outputs, commands, batches: ranges, regions })
}

/// Seconds that a batch takes.
fn estimate(plan: &Plan, batch: usize) -> f64 {
    let costs = plan.batches[batch].iter().map(|&index| cost(&plan.graph, index));
    costs.map(|cost| (cost.flops / FLOPS).max(cost.bytes / BYTES)).sum()
}

/// A launch whose table of chunks may be joined with others', or a command as it is.
enum Item {
    Ready(Recorded),
    Chunked(Chunked),
}

struct Recorder<'a> {
    plan: &'a Plan,
    layout: &'a Layout,
    hazards: Hazards,
    commands: Vec<Recorded>,
    tables: Vec<u8>,
    /// Updates that wait for the last batch with one.
    updates: Vec<Chunked>,
}

/// Lowered operations while their steps become commands.
struct Operands<'a> {
    nodes: &'a [usize],
    lowering: &'a Lowering,
    /// Where their tables lie.
    tables: Vec<Region>,
}

impl Recorder<'_> {
    /// The first steps of all operations, then the second ones, and so on: they are independent of each other.
    fn batch(&mut self, batch: usize, operations: &[Lowered]) -> Result<()> {
        let mut steps = Vec::with_capacity(operations.len());
        for operation in operations {
            let items = self.operation(operation)?;
            let waits = matches!(self.plan.graph.nodes()[operation.nodes[0]].operation, Operation::AdamW(_));
            let mut ready = Vec::new();
            let mut chunked = Vec::new();
            for item in items {
                match item {
                    Item::Chunked(launch) => chunked.push(launch),
                    Item::Ready(command) => ready.push(command),
                }
            }
            if waits && self.layout.last_update.is_some() {
                self.updates.extend(chunked);
                chunked = Vec::new();
            }
            // Sums of chunks come before what adds them up.
            let joined = join(chunked).into_iter().map(|launch| self.launch(launch)).collect::<Vec<_>>();
            steps.push([joined, ready].concat().into_iter());
        }
        loop {
            let next: Vec<Recorded> = steps.iter_mut().filter_map(Iterator::next).collect();
            if next.is_empty() {
                break;
            }
            next.into_iter().for_each(|command| self.emit(command));
        }
        if self.layout.last_update == Some(batch) {
            let updates = join(std::mem::take(&mut self.updates));
            let updates: Vec<Recorded> = updates.into_iter().map(|launch| self.launch(launch)).collect();
            updates.into_iter().for_each(|command| self.emit(command));
        }
        Ok(())
    }

    fn emit(&mut self, recorded: Recorded) {
        if matches!(recorded.command, Command::Commit) {
            self.hazards.clear();
        } else if self.hazards.conflict(&recorded.touches) {
            let operation = recorded.operation;
            self.commands.push(Recorded { command: Command::Barrier, operation, touches: vec![] });
            self.hazards.clear();
        }
        self.hazards.note(&recorded.touches);
        self.commands.push(recorded);
    }

    fn operation(&mut self, lowered: &Lowered) -> Result<Vec<Item>> {
        let lowering = &lowered.lowering;
        let chunked = |step: &Step| matches!(step, Step::Launch(launch, _) if is_chunked(launch.kernel));
        let joinable = lowering.steps.iter().any(chunked);
        let tables =
            lowering.tables.iter().map(|table| if joinable { no_table() } else { self.table(table) });
        let at = Operands { nodes: &lowered.nodes, lowering, tables: tables.collect() };
        lowering.steps.iter().map(|step| self.step(&at, step)).collect()
    }

    /// Bytes that lie in the table of all tables.
    fn table(&mut self, bytes: &[u8]) -> Region {
        let region = Region { buffer: Buffer::Tables, offset: self.tables.len(), bytes: bytes.len() };
        self.tables.extend(bytes);
        self.tables.resize(align(self.tables.len()), 0);
        region
    }

    fn launch(&mut self, mut chunked: Chunked) -> Recorded {
        let table = self.table(bytemuck::cast_slice(&chunked.chunks));
        if let Some(at) = table_binding(chunked.launch.kernel) {
            chunked.bindings[at] = table;
        }
        let Chunked { launch, element, bindings, operation, touches, .. } = chunked;
        // The width of heads is that of libraries without attention.
        let command = Command::Launch {
            launch,
            element,
            head_dim: crate::kernels::metal::lower::ANY_HEAD_DIM,
            bindings,
        };
        Recorded { command, operation, touches }
    }

    fn touch(&self, index: usize, region: Region, writes: bool) -> Touch {
        Touch { region, holder: Holder::Node(storage_of(&self.plan.graph, index)), writes }
    }

    fn step(&self, at: &Operands<'_>, step: &Step) -> Result<Item> {
        let Lowering { element, head_dim, .. } = *at.lowering;
        let operation = at.nodes.last().copied().unwrap_or_default();
        match step {
            Step::Product { left, right, y, transpose_left, transpose_right, extents } => {
                let touches = [(*left, false), (*right, false), (*y, true)]
                    .map(|(place, writes)| self.resolve(at, place.into(), writes));
                let [left, right, y] = touches;
                let (left, right, y) = (left?, right?, y?);
                if y.region.offset != 0 {
                    return Err(Error::internal("a product does not begin its buffer"));
                }
                let command = Command::Product {
                    element,
                    left: left.region,
                    right: right.region,
                    y: y.region,
                    transpose_left: *transpose_left,
                    transpose_right: *transpose_right,
                    extents: *extents,
                };
                Ok(Item::Ready(Recorded { command, operation, touches: vec![left, right, y] }))
            }
            Step::Launch(launch, bound) => {
                let interface = INTERFACES.iter().find(|interface| interface.kernel == launch.kernel);
                let accesses = interface.map(|interface| interface.bindings).unwrap_or_default().iter();
                let touches = bound
                    .iter()
                    .zip(accesses)
                    .map(|(bound, binding)| self.resolve(at, *bound, binding.access == Access::Write));
                let touches = touches.collect::<Result<Vec<_>>>()?;
                let bindings = touches.iter().map(|touch| touch.region).collect();
                let launch = launch.clone();
                if let Some(chunks) = chunks(at, bound, &launch) {
                    let touches = touches.into_iter().filter(|touch| touch.holder != Holder::Table).collect();
                    return Ok(Item::Chunked(Chunked {
                        launch,
                        element,
                        bindings,
                        chunks,
                        operation,
                        touches,
                    }));
                }
                let command = Command::Launch { launch, element, head_dim, bindings };
                Ok(Item::Ready(Recorded { command, operation, touches }))
            }
        }
    }

    fn resolve(&self, at: &Operands<'_>, bound: Bound, writes: bool) -> Result<Touch> {
        let missing = || Error::internal(format!("nodes {:?} are bound to nothing", at.nodes));
        let nodes = at.nodes.iter().map(|&index| (index, &self.plan.graph.nodes()[index]));
        let touch = match bound.place {
            Place::Input(input) => {
                let &index = nodes.flat_map(|(_, node)| &node.inputs).nth(input).ok_or_else(missing)?;
                self.touch(index, self.layout.region(index)?, writes)
            }
            Place::Output(output) => {
                let outputs = nodes.flat_map(|(index, node)| {
                    let starts = node.outputs.iter().scan(0, |end, output| {
                        let start = *end;
                        *end += align(output.bytes());
                        Some((start, output.bytes()))
                    });
                    starts.map(move |(start, bytes)| (index, start, bytes)).collect::<Vec<_>>()
                });
                let (index, start, bytes) = { outputs }.nth(output).ok_or_else(missing)?;
                self.touch(index, self.layout.region(index)?.part(start, bytes), writes)
            }
            Place::Scratch(scratch) => {
                let first = at.nodes.first().copied().unwrap_or_default();
                let region = self.layout.scratch.get(&first).and_then(|all| all.get(scratch));
                Touch {
                    region: *region.ok_or_else(missing)?,
                    holder: Holder::Scratch(first, scratch),
                    writes,
                }
            }
            Place::Table(table) => {
                let region = *at.tables.get(table).ok_or_else(missing)?;
                Touch { region, holder: Holder::Table, writes }
            }
        };
        Ok(Touch { region: touch.region.after(bound.offset), ..touch })
    }
}

/// Stands for a table that is joined with others before it gets a place.
fn no_table() -> Region {
    Region { buffer: Buffer::Tables, offset: 0, bytes: 0 }
}

/// The table of chunks that a launch reads, if it reads one.
fn chunks(
    at: &Operands<'_>,
    bound: &[Bound],
    launch: &crate::kernels::metal::launch::Launch,
) -> Option<Vec<Chunk>> {
    let binding = bound.get(table_binding(launch.kernel)?)?;
    let Place::Table(table) = binding.place else { return None };
    let bytes = at.lowering.tables.get(table)?;
    Some(bytes.chunks_exact(size_of::<Chunk>()).map(bytemuck::pod_read_unaligned).collect())
}
