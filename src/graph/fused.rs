//! Building with fused operations.

use super::lazy_tensor::LazyTensor;
use super::operation::{AttentionSpec, LowRank, Operation};
use super::tensor_type::Scalar;

impl LazyTensor {
    /// (self [n, d], weight `[d]`) -> [n, d]
    #[track_caller]
    pub fn rms_norm(&self, weight: &Self, epsilon: f64) -> Self {
        self.then(Operation::RmsNorm { epsilon: Scalar(epsilon) }, &[weight])
    }

    /// Rotates each head by the angles of its token: cos and sin are [n, head_dim / 2].
    #[track_caller]
    pub fn rope(&self, cos: &Self, sin: &Self, head_dim: usize) -> Self {
        self.then(Operation::Rope { head_dim, inverse: false }, &[cos, sin])
    }

    /// Causal attention of the queries `self` within segments: [n, heads * head_dim].
    #[track_caller]
    pub fn attention(&self, keys: &Self, values: &Self, segments: &Self, spec: AttentionSpec) -> Self {
        self.then(Operation::Attention(spec), &[keys, values, segments]).output(0)
    }

    /// Adds a bias `[d]` to every row of self [n, d].
    #[track_caller]
    pub fn plus_bias(&self, bias: &Self) -> Self {
        self.then(Operation::AddBias, &[bias])
    }

    /// silu(self) * up
    #[track_caller]
    pub fn swiglu(&self, up: &Self) -> Self {
        self.then(Operation::SwiGlu, &[up])
    }

    /// gelu(self) * up
    #[track_caller]
    pub fn geglu(&self, up: &Self) -> Self {
        self.then(Operation::GeGlu, &[up])
    }

    /// `self weight^T`: [n, in] and [out, in] -> [n, out]
    #[track_caller]
    pub fn linear(&self, weight: &Self) -> Self {
        self.then(Operation::Linear { transpose_weight: false, low_rank: None, residual: false }, &[weight])
    }

    /// `self weight^T + scale * (x a^T) b^T` (Hu et al. 2021, arXiv:2106.09685); x is `self`, after dropout if any.
    ///
    /// a is [rank, in], b is [out, rank].
    #[track_caller]
    pub fn lora_linear(&self, weight: &Self, x: &Self, a: &Self, b: &Self, scale: f64) -> Self {
        let low_rank = Some(LowRank { scale: Scalar(scale), transpose: false });
        let down = x.matmul_transposed(a);
        self.then(
            Operation::Linear { transpose_weight: false, low_rank, residual: false },
            &[weight, &down, b],
        )
    }

    /// Losses of the next-token predictions `softmax(self weight^T)`, one per token, 0 where the target is ignored; logits
    /// are capped softly before the softmax where there is a cap.
    #[track_caller]
    pub fn projected_cross_entropy(&self, weight: &Self, targets: &Self, soft_cap: Option<f64>) -> Self {
        let soft_cap = soft_cap.map(Scalar);
        self.then(Operation::ProjectedCrossEntropy { soft_cap }, &[weight, targets])
    }
}
