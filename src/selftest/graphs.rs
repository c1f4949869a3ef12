//! Graphs of a case: its kernel, its formula, and several copies of either in a row.

use super::case::{Case, Formula};
use crate::autodiff::gradients;
use crate::error::{Error, Result};
use crate::graph::{ComputationGraph, DType, FrozenGraph, FrozenNode, LazyTensor, Operation};
use crate::passes::{LAYOUT, Pass, decompose};
use crate::plan::Target;

/// Everything alone and as it is: no two operations at a time, no rewriting but of the layout of weights.
pub struct OneByOne<'a>(pub &'a dyn Target);

impl Target for OneByOne<'_> {
    fn storage_bytes(&self, node: &FrozenNode) -> usize {
        self.0.storage_bytes(node)
    }

    fn batch_size_hint(&self) -> usize {
        1
    }

    fn caches_constants(&self) -> bool {
        self.0.caches_constants()
    }

    fn passes(&self) -> Vec<Pass> {
        self.0.passes().into_iter().filter(|pass| pass.name == LAYOUT.name).collect()
    }

    fn lacks_kernel(&self, operation: &Operation) -> bool {
        self.0.lacks_kernel(operation)
    }
}

/// What a device computes for a case.
pub struct Lowered {
    pub graph: FrozenGraph,
    /// The operation itself, and not its formula because the device has no kernel of it.
    pub is_kernel: bool,
}

/// The kernel on a device that has it, else the formula in plain operations.
///
/// # Errors
/// The shape error of a case whose operands do not fit.
pub fn on_device(case: &Case, tested: DType, target: &dyn Target) -> Result<Lowered> {
    let graph = kernel(case, tested)?;
    let lacks = |operation: &Operation| target.lacks_kernel(operation);
    // Gradients have no plain form of their own, which is an error here.
    match decompose(&graph, &lacks) {
        Ok(plain) if plain == graph => Ok(Lowered { graph, is_kernel: true }),
        _ => Ok(Lowered {
            graph: formula(case, &At { tested, resident: true, lacks: &lacks })?,
            is_kernel: false,
        }),
    }
}

/// # Errors
/// The shape error of a case whose operands do not fit.
pub fn kernel(case: &Case, tested: DType) -> Result<FrozenGraph> {
    let graph = ComputationGraph::new();
    let handles = case.handles(&graph, tested, true);
    graph.freeze(&(case.kernel)(&handles))
}

/// Where a formula is computed.
struct At<'a> {
    tested: DType,
    /// Whether the device holds weights and activations between steps.
    resident: bool,
    /// Selects the operations that are written out.
    lacks: &'a dyn Fn(&Operation) -> bool,
}

/// The case's definition in f64 and plain operations alone.
///
/// # Errors
/// The shape error of a case whose operands do not fit.
pub fn exact(case: &Case) -> Result<FrozenGraph> {
    formula(case, &At { tested: DType::F64, resident: false, lacks: &|_| true })
}

fn formula(case: &Case, at: &At<'_>) -> Result<FrozenGraph> {
    let graph = ComputationGraph::new();
    let handles = case.handles(&graph, at.tested, at.resident);
    let values = match &case.formula {
        Formula::Kernel => (case.kernel)(&handles),
        Formula::Values(values) => values(&handles),
        Formula::Derivatives { forward, dy, wrt } => {
            let loss = forward(&handles).times(&handles[*dy]).sum_all();
            return derivatives(case, at, &loss, wrt);
        }
    };
    decompose(&graph.freeze(&values)?, at.lacks)
}

fn derivatives(case: &Case, at: &At<'_>, loss: &LazyTensor, wrt: &[usize]) -> Result<FrozenGraph> {
    let plain = decompose(&loss.graph().freeze(std::slice::from_ref(loss))?, at.lacks)?;
    let loss = plain.thaw().pop().ok_or_else(|| Error::internal("a loss was lost"))?;
    let leaf = |&slot: &usize| {
        let leaf = &case.leaves[slot];
        let operation = case.operation(slot, at.tested, at.resident);
        loss.graph().leaf(operation, &leaf.dims, leaf.dtype(at.tested))
    };
    let gradients = gradients(&loss, &wrt.iter().map(leaf).collect::<Vec<_>>())?;
    loss.graph().freeze(&gradients)
}

/// The same values `copies` times, each of which is computed anew.
///
/// # Errors
/// An internal error if a copy does not fit: a bug.
pub fn repeated(graph: &FrozenGraph, copies: u32) -> Result<FrozenGraph> {
    let (built, varies) = (ComputationGraph::new(), graph.varies());
    let mut roots = Vec::new();
    for copy in 0..copies {
        let mut handles: Vec<LazyTensor> = Vec::with_capacity(graph.nodes().len());
        for (node, varies) in graph.nodes().iter().zip(&varies) {
            let inputs: Vec<&LazyTensor> = node.inputs.iter().map(|&input| &handles[input]).collect();
            let tensor = node.tensor_type();
            handles.push(if inputs.is_empty() {
                built.leaf(node.operation.clone(), tensor.shape.dims(), tensor.dtype)
            } else {
                built.apply_copy(node.operation.clone(), &inputs, if *varies { copy } else { 0 })
            });
        }
        roots.extend(graph.roots().iter().map(|&root| handles[root].clone()));
    }
    built.freeze(&roots)
}
