//! Arithmetic and memory traffic of an operation, counted from shapes.

use std::iter::Sum;
use std::ops::Add;

use crate::graph::{AttentionSpec, FrozenGraph, GateFunction, Operation};

/// What an operation costs, whoever runs it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cost {
    /// Floating-point operations; a multiply-add counts as two. Causal attention counts its triangle.
    pub flops: f64,
    /// Bytes read and written if every operand moves once.
    pub bytes: f64,
}

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { flops: self.flops + other.flops, bytes: self.bytes + other.bytes }
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), Self::add)
    }
}

/// Cost of the node `index`.
pub fn cost(graph: &FrozenGraph, index: usize) -> Cost {
    let node = &graph.nodes()[index];
    if !node.operation.computes() {
        return Cost::default();
    }
    let written: usize = node.outputs.iter().map(|output| output.bytes()).sum();
    let bytes = |&input: &usize| graph.nodes()[input].tensor_type().bytes();
    let read: usize = match node.operation {
        // Of the table only the rows asked for.
        Operation::Embedding | Operation::PackedEmbedding => written + bytes(&node.inputs[1]),
        _ => node.inputs.iter().map(bytes).sum(),
    };
    Cost { flops: flops(graph, index), bytes: (read + written) as f64 }
}

/// Operations per element are the arithmetic of the formula, with a transcendental function counted as one.
fn flops(graph: &FrozenGraph, index: usize) -> f64 {
    use Operation as Op;
    let node = &graph.nodes()[index];
    let elements = node.tensor_type().shape.elements() as f64;
    let input = |slot: usize| graph.nodes()[node.inputs[slot]].tensor_type().shape;
    match &node.operation {
        Op::Input(_) | Op::Frozen(_) | Op::State(_) | Op::Constant(_) => 0.0,
        Op::Reshape(_) | Op::Detach => 0.0,
        Op::BroadcastTo(_) | Op::Permute(_) | Op::Slice { .. } | Op::Concat { .. } => 0.0,
        Op::Cast(_)
        | Op::Embedding
        | Op::PackedEmbedding
        | Op::TakeLast
        | Op::ScatterLast { .. }
        | Op::Output(_) => 0.0,
        Op::Assign | Op::WriteRows | Op::Pack => 0.0,
        Op::AttentionMask { .. } | Op::CacheMask { .. } | Op::Unary(_) | Op::Binary(_) | Op::AddBias => {
            elements
        }
        Op::RopeTable(_) | Op::Affine { .. } | Op::DropoutMask { .. } => 2.0 * elements,
        Op::Reduce { .. } => input(0).elements() as f64,
        Op::ScatterRows { .. } => input(1).elements() as f64,
        Op::MatMul { transpose_left, .. } => {
            let left = input(0);
            let axis = left.rank() - if *transpose_left { 2 } else { 1 };
            2.0 * elements * left.dims()[axis] as f64
        }
        Op::RmsNorm { .. } => 4.0 * elements,
        Op::RmsNormGrad { residual, .. } => (8.0 + f64::from(u8::from(*residual))) * elements,
        Op::Rope { .. } => 3.0 * elements,
        Op::Attention(spec) => 2.0 * triangle(spec),
        Op::AttentionGrad(spec) => 5.0 * triangle(spec),
        Op::CachedAttention(spec) => {
            4.0 * (spec.seq * spec.heads * spec.head_dim) as f64 * input(1).rows() as f64
        }
        Op::SwiGlu => 4.0 * elements,
        Op::SwiGluGrad => 9.0 * elements,
        Op::GeGlu => 7.0 * elements,
        Op::GeGluGrad => 15.0 * elements,
        Op::Linear { low_rank, .. } => {
            let rank = low_rank.map_or(0, |_| input(2).last());
            2.0 * elements * (input(0).last() + rank) as f64
        }
        Op::LinearGatedGrad { low_rank, function, value, .. } => {
            let rank = low_rank.map_or(0, |_| input(2).last());
            let (gradient, again) = match function {
                GateFunction::Silu => (9.0, 4.0),
                GateFunction::GeluTanh => (15.0, 7.0),
            };
            let gates = gradient + if *value { again } else { 0.0 };
            elements * (2.0 * (input(0).last() + rank) as f64 + gates)
        }
        Op::Route { .. } => input(0).elements() as f64,
        Op::ExpertLinear { .. } => 2.0 * elements * input(0).last() as f64,
        Op::ExpertWeightGrad { .. } => 2.0 * (input(0).elements() * input(1).last()) as f64,
        Op::ProjectedCrossEntropy { .. } => projection(input(0).elements(), input(1).rows()),
        Op::ProjectedCrossEntropyGrad { .. } | Op::ProjectedCrossEntropyWeightGrad { .. } => {
            2.0 * projection(input(0).elements(), input(1).rows())
        }
        Op::SumOfSquares => {
            node.inputs.iter().map(|&i| graph.nodes()[i].tensor_type().shape.elements() as f64 * 2.0).sum()
        }
        Op::AdamW(_) => 12.0 * elements,
    }
}

/// One product of queries and keys, or of weights and values, over the pairs that a causal window keeps.
fn triangle(spec: &AttentionSpec) -> f64 {
    let seq = spec.seq as f64;
    let window = spec.window.map_or(seq, |window| seq.min(window as f64));
    // The first queries see all before them, the others a whole window.
    let pairs = window * (window + 1.0) / 2.0 + (seq - window) * window;
    2.0 * (spec.batch * spec.heads * spec.head_dim) as f64 * pairs
}

fn projection(hidden_elements: usize, vocab: usize) -> f64 {
    2.0 * hidden_elements as f64 * vocab as f64
}
