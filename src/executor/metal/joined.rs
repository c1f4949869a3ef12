//! Launches over runs of elements, joined: one kernel takes the gradients, or updates the parameters, of all adapters.

use super::program::{Buffer, Region, Touch};
use crate::kernels::metal::launch::Launch;
use crate::kernels::metal::{Chunk, Element, INTERFACES};

/// A launch of a kernel that reads a table of chunks.
#[derive(Debug, Clone)]
pub(super) struct Chunked {
    pub launch: Launch,
    pub element: Element,
    /// As the interface has them; that of the table is not known yet.
    pub bindings: Vec<Region>,
    pub chunks: Vec<Chunk>,
    pub operation: usize,
    pub touches: Vec<Touch>,
}

/// How chunks mean a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// Chunks say where in it a tensor begins.
    Gradient,
    State,
    Table,
    /// One element a chunk.
    Partials,
    Other,
}

fn meanings(kernel: &str) -> impl Iterator<Item = Meaning> {
    let interface = INTERFACES.iter().find(move |interface| interface.kernel == kernel);
    let bindings = interface.map(|interface| interface.bindings).unwrap_or_default();
    bindings.iter().map(|binding| match binding.name {
        "gradients" => Meaning::Gradient,
        "parameters" | "first_moments" | "second_moments" => Meaning::State,
        "chunks" => Meaning::Table,
        "partials" => Meaning::Partials,
        _ => Meaning::Other,
    })
}

/// Whether a kernel reads a table of chunks.
pub(super) fn is_chunked(kernel: &str) -> bool {
    meanings(kernel).any(|meaning| meaning == Meaning::Table)
}

/// The table's chunks, and where it is bound.
pub(super) fn table_binding(kernel: &str) -> Option<usize> {
    meanings(kernel).position(|meaning| meaning == Meaning::Table)
}

impl Chunked {
    /// Binds whole buffers, and lets the chunks say where in them their tensors are. Nothing changes where states lie
    /// at different places in their buffers.
    fn rebased(mut self) -> Self {
        let states =
            || meanings(self.launch.kernel).zip(&self.bindings).filter(|(m, _)| *m == Meaning::State);
        let state = states().next().map_or(0, |(_, region)| region.offset);
        if states().any(|(_, region)| region.offset != state) {
            return self;
        }
        let element = self.element.bytes();
        for (meaning, region) in meanings(self.launch.kernel).zip(&mut self.bindings) {
            match meaning {
                Meaning::Gradient => {
                    let first = (region.offset / element) as u64;
                    self.chunks.iter_mut().for_each(|chunk| chunk.gradient += first);
                }
                Meaning::State => {}
                Meaning::Table | Meaning::Partials | Meaning::Other => continue,
            }
            *region = Region { offset: 0, bytes: region.end(), ..*region };
        }
        let first = (state / size_of::<f32>()) as u64;
        self.chunks.iter_mut().for_each(|chunk| chunk.state += first);
        self
    }

    /// Whether one launch can do the work of both.
    fn joins(&self, other: &Self) -> bool {
        let same = |((meaning, left), right): ((Meaning, &Region), &Region)| match meaning {
            Meaning::Gradient | Meaning::State => left.buffer == right.buffer && left.offset == right.offset,
            Meaning::Table | Meaning::Partials => true,
            Meaning::Other => left == right,
        };
        self.launch.kernel == other.launch.kernel
            && self.launch.spec == other.launch.spec
            && self.element == other.element
            && meanings(self.launch.kernel).zip(&self.bindings).zip(&other.bindings).all(same)
    }

    fn join(&mut self, other: Self) {
        self.chunks.extend(other.chunks);
        self.operation = self.operation.max(other.operation);
        self.touches.extend(other.touches);
        for (region, other) in self.bindings.iter_mut().zip(other.bindings) {
            region.bytes = region.bytes.max(other.bytes);
        }
    }
}

/// As few launches as do the same: those that bind the same buffers become one. With gradients in one buffer and states
/// in three, laid out alike, that is one for all parameters.
pub(super) fn join(launches: Vec<Chunked>) -> Vec<Chunked> {
    let partials = launches.first().and_then(Chunked::partials);
    let mut joined: Vec<Chunked> = Vec::new();
    for launch in launches {
        let launch = launch.rebased();
        match joined.iter_mut().find(|earlier| earlier.joins(&launch)) {
            Some(earlier) => earlier.join(launch),
            None => joined.push(launch),
        }
    }
    // Sums go where the first launch put its own, one after the other.
    let mut first = 0;
    for launch in &mut joined {
        launch.launch.threadgroups[0] = launch.chunks.len() as u32;
        if let Some(partials) = partials {
            launch.set_partials(
                partials.part(size_of::<f32>() * first, size_of::<f32>() * launch.chunks.len()),
            );
        }
        first += launch.chunks.len();
    }
    joined
}

impl Chunked {
    fn partials(&self) -> Option<Region> {
        let at = meanings(self.launch.kernel).position(|meaning| meaning == Meaning::Partials);
        at.and_then(|at| self.bindings.get(at)).copied()
    }

    fn set_partials(&mut self, region: Region) {
        let Some(at) = meanings(self.launch.kernel).position(|meaning| meaning == Meaning::Partials) else {
            return;
        };
        let own = |touch: &&mut Touch| touch.writes && matches!(touch.region.buffer, Buffer::Own(_));
        self.touches.iter_mut().filter(own).for_each(|touch| touch.region = region);
        self.bindings[at] = region;
    }
}
