//! From an operation to the launches that compute it: what a device runs, and what `tests/metal` run as C++.

mod attention;
mod cross_entropy;
mod experts;
mod linear;
mod matrix;
mod optimizer;
mod plain;
mod rows;

use super::Element;
use super::launch::Launch;
use crate::error::{Error, Result};
use crate::graph::{DType, Operation, TensorType};

/// What a binding or a product is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Input(usize),
    Output(usize),
    /// Memory that only these steps need, by index.
    Scratch(usize),
    /// Bytes that the host knows, by index.
    Table(usize),
}

/// A place from a byte on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    pub place: Place,
    pub offset: usize,
}

impl From<Place> for Bound {
    fn from(place: Place) -> Self {
        Self { place, offset: 0 }
    }
}

impl Place {
    pub(super) fn at(self, offset: usize) -> Bound {
        Bound { place: self, offset }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// A kernel with what it is bound to, but for its spec.
    Launch(Launch, Vec<Bound>),
    /// The device's own product: y [rows, columns] = left [rows, depth], or left [depth, rows]^T where
    /// `transpose_left`, times right [columns, depth]^T, or right [depth, columns] where not `transpose_right`.
    Product {
        left: Place,
        right: Place,
        y: Place,
        transpose_left: bool,
        transpose_right: bool,
        extents: [usize; 3],
    },
}

/// Steps in their order; each may read what those before it wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct Lowering {
    pub element: Element,
    pub head_dim: usize,
    pub steps: Vec<Step>,
    /// Bytes of each piece of scratch memory.
    pub scratch: Vec<usize>,
    pub tables: Vec<Vec<u8>>,
}

/// Width of heads of a library that computes no attention.
pub const ANY_HEAD_DIM: usize = 64;

impl Lowering {
    fn new(element: Element) -> Self {
        Self { element, head_dim: ANY_HEAD_DIM, steps: vec![], scratch: vec![], tables: vec![] }
    }

    /// Nothing where there is nothing to write: Metal takes no grid without threadgroups.
    fn launch<const N: usize>(&mut self, launch: Launch, bound: [Bound; N]) {
        if !launch.threadgroups.contains(&0) {
            self.steps.push(Step::Launch(launch, bound.to_vec()));
        }
    }

    fn scratch(&mut self, bytes: usize) -> Place {
        self.scratch.push(bytes);
        Place::Scratch(self.scratch.len() - 1)
    }

    fn table(&mut self, bytes: Vec<u8>) -> Place {
        self.tables.push(bytes);
        Place::Table(self.tables.len() - 1)
    }
}

/// Sizes as kernels take them.
fn extent(n: usize) -> Result<u32> {
    u32::try_from(n).map_err(|_| {
        Error::device(format!("{n} elements are too many for a Metal kernel")).hint("use a smaller batch")
    })
}

fn element_of(tensor: TensorType) -> Result<Element> {
    match tensor.dtype {
        DType::F32 => Ok(Element::F32),
        DType::Bf16 => Ok(Element::Bf16),
        DType::F64 | DType::U32 => Err(Error::internal(format!("no Metal kernel computes with {tensor}"))),
    }
}

/// An operation with the types of its operands.
struct Node<'a> {
    inputs: &'a [TensorType],
    outputs: &'a [TensorType],
}

impl Node<'_> {
    /// The type of the first operand that is not ids; where there is none, no kernel asks.
    fn element(&self) -> Result<Element> {
        let floats = |tensor: &&TensorType| tensor.dtype.is_float();
        self.inputs
            .iter()
            .chain(self.outputs)
            .find(floats)
            .map_or(Ok(Element::F32), |&tensor| element_of(tensor))
    }

    fn input(&self, index: usize) -> Result<TensorType> {
        let missing = || Error::internal(format!("an operation has no input {index}"));
        self.inputs.get(index).copied().ok_or_else(missing)
    }

    fn output(&self, index: usize) -> Result<TensorType> {
        let missing = || Error::internal(format!("an operation has no output {index}"));
        self.outputs.get(index).copied().ok_or_else(missing)
    }
}

/// Whether [`lower`] takes an operation. Of those that compute it takes all but [`Operation::RopeTable`], which the host
/// computes once in f64, and those that are for the CPU's packed weights.
pub fn has_kernel(operation: &Operation) -> bool {
    use Operation as Op;
    match operation {
        Op::Cast(dtype) => matches!(dtype, DType::F32 | DType::Bf16),
        Op::Constant(_)
        | Op::Unary(_)
        | Op::Binary(_)
        | Op::Affine { .. }
        | Op::BroadcastTo(_)
        | Op::Permute(_)
        | Op::Slice { .. }
        | Op::Concat { .. }
        | Op::Reduce { .. }
        | Op::MatMul { .. }
        | Op::Embedding
        | Op::ScatterRows { .. }
        | Op::TakeLast
        | Op::ScatterLast { .. }
        | Op::AttentionMask { .. }
        | Op::CacheMask { .. }
        | Op::DropoutMask { .. }
        | Op::RmsNorm { .. }
        | Op::RmsNormGrad { residual: false, .. }
        | Op::Rope { .. }
        | Op::Attention(_)
        | Op::AttentionGrad(_)
        | Op::CachedAttention(_)
        | Op::AddBias
        | Op::SwiGlu
        | Op::SwiGluGrad
        | Op::GeGlu
        | Op::GeGluGrad
        | Op::Linear { .. }
        | Op::ProjectedCrossEntropy { .. }
        | Op::ProjectedCrossEntropyGrad { .. }
        | Op::ProjectedCrossEntropyWeightGrad { .. }
        | Op::Route { .. }
        | Op::ExpertLinear { .. }
        | Op::ExpertWeightGrad { .. }
        | Op::SumOfSquares
        | Op::AdamW(_)
        | Op::Assign
        | Op::WriteRows => true,
        Op::Input(_)
        | Op::Frozen(_)
        | Op::State(_)
        | Op::RopeTable(_)
        | Op::Reshape(_)
        | Op::Detach
        | Op::Output(_)
        | Op::Pack
        | Op::PackedEmbedding
        | Op::LinearGatedGrad { .. }
        | Op::RmsNormGrad { residual: true, .. } => false,
    }
}

/// The launches of an operation. A state that is updated is its first input, and has no place as an output.
///
/// # Errors
/// An internal error if [`has_kernel`] says no, or the operands do not fit; a device error if they are too large.
pub fn lower(operation: &Operation, inputs: &[TensorType], outputs: &[TensorType]) -> Result<Lowering> {
    use Operation as Op;
    let node = Node { inputs, outputs };
    let mut to = Lowering::new(node.element()?);
    match operation {
        Op::RmsNorm { epsilon } => rows::rms_norm(&node, epsilon.0, &mut to),
        Op::RmsNormGrad { epsilon, weight_gradient, residual: false } => {
            rows::rms_norm_gradient(&node, epsilon.0, *weight_gradient, &mut to)
        }
        Op::Rope { head_dim, inverse } => rows::rope(&node, *head_dim, *inverse, &mut to),
        Op::AddBias => rows::add_bias(&node, &mut to),
        Op::SwiGlu | Op::SwiGluGrad | Op::GeGlu | Op::GeGluGrad => rows::gated(&node, operation, &mut to),
        Op::Embedding => rows::embedding(&node, &mut to),
        Op::Attention(spec) => attention::forward(spec, &mut to),
        Op::AttentionGrad(spec) => attention::gradient(spec, &mut to),
        Op::CachedAttention(spec) => attention::cached(&node, spec, &mut to),
        Op::Route { chosen, side } => experts::route(&node, *chosen, *side, &mut to),
        Op::ExpertLinear { transpose_weight } => experts::linear(&node, *transpose_weight, &mut to),
        Op::ExpertWeightGrad { experts } => experts::weight_gradient(&node, *experts, &mut to),
        Op::Linear { transpose_weight, low_rank, residual } => {
            linear::linear(&node, *transpose_weight, *low_rank, *residual, &mut to)
        }
        Op::ProjectedCrossEntropy { soft_cap } => cross_entropy::loss(&node, *soft_cap, &mut to),
        Op::ProjectedCrossEntropyGrad { soft_cap } => cross_entropy::gradient(&node, *soft_cap, &mut to),
        Op::ProjectedCrossEntropyWeightGrad { soft_cap } => {
            cross_entropy::weight_gradient(&node, *soft_cap, &mut to)
        }
        Op::SumOfSquares => optimizer::sum_of_squares(&node, &mut to),
        Op::AdamW(spec) => optimizer::adamw(&node, *spec, &mut to),
        _ => plain(operation, &node, &mut to),
    }?;
    Ok(to)
}

/// An operation with the types of what it is applied to.
#[derive(Debug, Clone, Copy)]
pub struct Applied<'a> {
    pub operation: &'a Operation,
    pub inputs: &'a [TensorType],
    pub outputs: &'a [TensorType],
}

/// The launches of two or three operations that do not depend on each other, where they share launches: thin products of
/// the same types. Inputs and outputs are numbered through all of them, in their order.
///
/// # Errors
/// As for [`lower`].
pub fn lower_together(applied: &[Applied<'_>]) -> Result<Option<Lowering>> {
    let mut layouts = vec![];
    for one in applied {
        let Operation::MatMul { transpose_left, transpose_right, .. } = *one.operation else {
            return Ok(None);
        };
        layouts.push([transpose_left, transpose_right]);
    }
    let nodes: Vec<Node<'_>> =
        applied.iter().map(|one| Node { inputs: one.inputs, outputs: one.outputs }).collect();
    let mut to = Lowering::new(Element::F32);
    Ok(matrix::together(&nodes, &layouts, &mut to)?.map(|()| to))
}

fn plain(operation: &Operation, node: &Node<'_>, to: &mut Lowering) -> Result<()> {
    use Operation as Op;
    match operation {
        Op::Constant(value) => plain::constant(node, *value, to),
        Op::Unary(kind) => plain::unary(node, *kind, to),
        Op::Binary(kind) => plain::binary(node, *kind, to),
        Op::Affine { multiply, add } => plain::affine(node, [*multiply, *add], to),
        Op::Cast(_) => plain::cast(node, to),
        Op::BroadcastTo(_) | Op::Permute(_) | Op::Slice { .. } => plain::view(node, operation, to),
        Op::Concat { axis } => plain::concat(node, *axis, to),
        Op::Reduce { reduction, axis } => plain::reduce(node, *reduction, *axis, to),
        Op::MatMul { transpose_left, transpose_right, .. } => {
            matrix::product(node, *transpose_left, *transpose_right, to)
        }
        Op::ScatterRows { .. } => plain::scatter_rows(node, to),
        Op::TakeLast => plain::take_last(node, to),
        Op::ScatterLast { .. } => plain::scatter_last(node, to),
        Op::AttentionMask { window, .. } => plain::mask(node, *window, false, to),
        Op::CacheMask { window, .. } => plain::mask(node, *window, true, to),
        Op::DropoutMask { stream, probability, .. } => plain::dropout_mask(node, *stream, probability.0, to),
        Op::Assign => plain::assign(node, to),
        Op::WriteRows => plain::write_rows(node, to),
        other => Err(Error::internal(format!("there is no Metal kernel of {other:?}"))),
    }
}
