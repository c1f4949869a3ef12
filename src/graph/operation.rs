//! Every operation a graph can hold.
//!
//! Leaves name data that lives outside the graph. Plain operations are the small language that every device can run.
//! Fused operations are what the decoder and the optimizer are made of; each has a decomposition into plain ones
//! (`passes::decompose`), which is its oracle in tests and its fallback on devices without the kernel. Activations
//! inside fused operations are matrices of tokens: [batch * seq, features], row-major.

use std::sync::Arc;

use super::tensor_type::{DType, MAX_RANK, Scalar, Shape};

/// A target that is not to be learned; `Embedding` reads such an id as a row of zeros.
pub const IGNORE_TARGET: u32 = u32::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unary {
    Negate,
    Exp,
    Log,
    Sqrt,
    Reciprocal,
    Sigmoid,
    Tanh,
    Sin,
    Cos,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    Minimum,
    /// 1 where both sides are equal, else 0.
    Equal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reduction {
    Sum,
    Max,
}

/// Rotary embedding angles: `position * frequency[i]`, i < head_dim / 2 (Su et al. 2021, arXiv:2104.09864).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RopeTable {
    pub positions: usize,
    /// Radians per position for each rotated pair, after rope scaling; head_dim / 2 of them.
    pub frequencies: Arc<[Scalar]>,
    pub kind: RopeTableKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RopeTableKind {
    Cosine,
    Sine,
}

/// Causal grouped-query attention within segments.
///
/// Query i of a row of the batch sees key j when `j <= i`, `i < j + window` and both have the same segment number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AttentionSpec {
    pub batch: usize,
    pub seq: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Multiplies the scores before the softmax: usually 1 / sqrt(head_dim).
    pub scale: Scalar,
    /// How many keys a query sees at most, its own the last of them.
    pub window: Option<usize>,
    /// Scaled scores become cap * tanh(score / cap) (Gemma Team 2024, arXiv:2408.00118).
    pub soft_cap: Option<Scalar>,
}

/// Decoupled weight decay Adam (Loshchilov and Hutter 2017, arXiv:1711.05101), as torch.optim.AdamW computes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AdamWSpec {
    pub beta1: Scalar,
    pub beta2: Scalar,
    pub epsilon: Scalar,
    pub weight_decay: Scalar,
}

/// What a `Route` tells of its pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteSide {
    Tokens,
    Experts,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Operation {
    // Leaves.
    /// A value the caller supplies at every step.
    Input(Arc<str>),
    /// A weight that never changes.
    Frozen(Arc<str>),
    /// A value that persists between steps and is updated in place: trained weights, moments, caches.
    State(Arc<str>),
    /// A tensor filled with one number.
    Constant(Scalar),
    /// -> [positions, head_dim / 2]
    RopeTable(RopeTable),

    // Plain operations.
    Unary(Unary),
    /// Both sides have the same shape.
    Binary(Binary),
    /// x * multiply + add
    Affine {
        multiply: Scalar,
        add: Scalar,
    },
    Cast(DType),
    /// The same value, a constant to differentiation.
    Detach,
    Reshape(Shape),
    /// Extents of 1 are repeated to the given shape of equal rank.
    BroadcastTo(Shape),
    /// Axis i of the result is axis `axes[i]` of the input.
    Permute([u8; MAX_RANK]),
    Slice {
        axis: usize,
        start: usize,
        length: usize,
    },
    Concat {
        axis: usize,
    },
    /// The reduced axis stays, with extent 1.
    Reduce {
        reduction: Reduction,
        axis: usize,
    },
    /// The last two axes are matrices; the ones before are equal on both sides.
    MatMul {
        transpose_left: bool,
        transpose_right: bool,
        /// The product of bf16 matrices stays in f32, in which it is summed.
        widen: bool,
    },
    /// (table [rows, width], ids u32 `[n]`) -> [n, width]; an id of [`IGNORE_TARGET`] gives zeros.
    Embedding,
    /// (ids u32 `[n]`, values [n, width]) -> [rows, width]: sums the values of equal ids.
    ScatterRows {
        rows: usize,
    },
    /// (x [n, m], ids u32 `[n]`) -> [n, 1]: one element of each row; [`IGNORE_TARGET`] gives 0.
    TakeLast,
    /// (values [n, 1], ids u32 `[n]`) -> [n, size]: zero but for one element of each row.
    ScatterLast {
        size: usize,
    },
    /// (segments u32 [batch * seq]) -> [batch, 1, 1, seq, seq]: 0 where query sees key, a large negative number elsewhere.
    AttentionMask {
        batch: usize,
        seq: usize,
        window: Option<usize>,
        dtype: DType,
    },
    /// (start u32 `[1]`) -> [1, 1, 1, seq, capacity]: 0 where the query at position start + i sees cache row j <= start + i.
    CacheMask {
        seq: usize,
        capacity: usize,
        window: Option<usize>,
        dtype: DType,
    },
    /// (seed u32 `[2]`) -> shape: 0 with the given probability, else 1 / (1 - probability); `stream` tells nodes apart.
    DropoutMask {
        stream: u32,
        probability: Scalar,
        shape: Shape,
        dtype: DType,
    },

    // Fused operations and their gradients.
    /// (x [n, d], weight `[d]`) -> [n, d]: x / sqrt(mean(x^2) + epsilon) * weight (Zhang and Sennrich 2019, arXiv:1910.07467).
    RmsNorm {
        epsilon: Scalar,
    },
    /// (x, weight, dy, and residual [n, d] where there is one) -> dx + residual, and dweight `[d]` as a second output where
    /// `weight_gradient`.
    RmsNormGrad {
        epsilon: Scalar,
        weight_gradient: bool,
        residual: bool,
    },
    /// (x [n, heads * head_dim], cos [n, head_dim / 2], sin [n, head_dim / 2]) -> [n, heads * head_dim].
    /// Rotates the halves of each head, as Hugging Face's Llama does; `inverse` rotates back.
    Rope {
        head_dim: usize,
        inverse: bool,
    },
    /// (q [n, heads * head_dim], k [n, kv_heads * head_dim], v [..], segments u32 `[n]`)
    /// -> out [n, heads * head_dim], log-sum-exp of the scaled scores f32 [n, heads].
    Attention(AttentionSpec),
    /// (q, k, v, segments, out, log-sum-exp, dout) -> dq, dk, dv (Dao 2023, arXiv:2307.08691).
    AttentionGrad(AttentionSpec),
    /// (q [n, heads * head_dim], keys [capacity, kv_heads * head_dim], values, start u32 `[1]`) -> [n, heads * head_dim].
    /// Decoding: query i stands at position start + i and sees cached keys 0..=start + i. `batch` is 1, `seq` is n.
    CachedAttention(AttentionSpec),
    /// (x [n, d], bias `[d]`) -> [n, d]: x + bias in every row.
    AddBias,
    /// (gate [n, f], up [n, f]) -> silu(gate) * up (Shazeer 2020, arXiv:2002.05202).
    SwiGlu,
    /// (gate, up, dy) -> dgate, dup.
    SwiGluGrad,
    /// (gate [n, f], up [n, f]) -> gelu(gate) * up, gelu in its form with tanh (Hendrycks and Gimpel 2016, arXiv:1606.08415).
    GeGlu,
    /// (gate, up, dy) -> dgate, dup.
    GeGluGrad,
    /// (x [n, in], weight) -> [n, out], weight [out, in] (or [in, out] where `transpose_weight`: a gradient's way back).
    /// With `low_rank`, two more inputs (u [n, r], v): + scale * u v^T with v [out, r], or + scale * u v with v [r, out].
    Linear {
        transpose_weight: bool,
        low_rank: Option<LowRank>,
        residual: bool,
    },
    /// (x, weight, u and v where `low_rank`, gate [n, out], up [n, out]) -> dgate, dup, and f(gate) * up where `value`:
    /// a `Linear` and the gradient of a gated unit, which alone reads its result dy.
    LinearGatedGrad {
        transpose_weight: bool,
        low_rank: Option<LowRank>,
        function: GateFunction,
        value: bool,
    },
    /// (hidden [n, d], weight [vocab, d], targets u32 `[n]`) -> loss f32 `[n]`, 0 at ignored targets.
    /// With a soft cap, logits become cap * tanh(logit / cap) first.
    ProjectedCrossEntropy {
        soft_cap: Option<Scalar>,
    },
    /// (hidden, weight, targets, dloss f32 `[n]`) -> loss f32 `[n]`, log-sum-exp f32 `[n]`, dhidden [n, d].
    ProjectedCrossEntropyGrad {
        soft_cap: Option<Scalar>,
    },
    /// (hidden, weight, targets, dloss, log-sum-exp) -> dweight [vocab, d].
    ProjectedCrossEntropyWeightGrad {
        soft_cap: Option<Scalar>,
    },
    /// (scores [n, experts]) -> u32 `[n * chosen]`: one side of the pairs of each token and its `chosen` highest-scored
    /// experts. Pairs are sorted by expert, then by token; among equal scores the first expert is chosen.
    Route {
        chosen: usize,
        side: RouteSide,
    },
    /// (x [n, in], weight [experts, out, in], expert of each row u32 `[n]`, ascending) -> [n, out]: `x weight[expert]^T`, or
    /// weight [experts, in, out] where `transpose_weight`: a gradient's way back.
    ExpertLinear {
        transpose_weight: bool,
    },
    /// (dy [n, out], x [n, in], expert of each row u32 `[n]`, ascending) -> [experts, out, in]: for each expert the sum over
    /// its rows of dy^T x.
    ExpertWeightGrad {
        experts: usize,
    },
    /// (any number of tensors) -> f32 `[1]`: the sum of the squares of all elements.
    SumOfSquares,
    /// (parameter state, gradient, first moment state, second moment state, learning rate f32 `[1]`, step number f32 `[1]`
    /// counted from 1, factor for the gradient f32 `[1]`): updates the three states.
    AdamW(AdamWSpec),
    /// (state, value): the state becomes the value.
    Assign,
    /// (state [capacity, width], rows [n, width], start u32 `[1]`): rows start.. of the state are replaced.
    WriteRows,

    // Layout and structure.
    /// A weight matrix laid out in panels for the CPU's matrix kernels, whichever way they multiply with it.
    Pack,
    /// (packed table [rows, width], ids u32 `[n]`) -> [n, width]: [`Operation::Embedding`] from a weight that is packed anyway.
    PackedEmbedding,
    /// One output of an operation that has several; costs nothing.
    Output(usize),
}

/// What the gate of a gated linear unit goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GateFunction {
    /// x * sigmoid(x)
    Silu,
    /// gelu in its form with tanh
    GeluTanh,
}

/// The low-rank part of a `Linear`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LowRank {
    pub scale: Scalar,
    /// v is [r, out] instead of [out, r].
    pub transpose: bool,
}

impl Operation {
    /// Whether the operation does work: leaves and views of other values do not.
    pub fn computes(&self) -> bool {
        !self.is_leaf() && !self.is_view()
    }

    /// A value from outside the graph.
    pub fn is_leaf(&self) -> bool {
        matches!(self, Self::Input(_) | Self::Frozen(_) | Self::State(_))
    }

    /// The same bytes as the first input, or as a part of them.
    pub fn is_view(&self) -> bool {
        matches!(self, Self::Reshape(_) | Self::Detach | Self::Output(_))
    }

    /// Whether the operation writes into the state that is its first input, and returns that state.
    pub fn updates_state(&self) -> bool {
        matches!(self, Self::AdamW(_) | Self::Assign | Self::WriteRows)
    }
}
