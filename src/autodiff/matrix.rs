//! Vector-Jacobian products of matrix operations.

use crate::graph::{LazyTensor, LowRank, Operation};

fn multiply(
    left: &LazyTensor,
    right: &LazyTensor,
    transpose_left: bool,
    transpose_right: bool,
) -> LazyTensor {
    left.then(Operation::MatMul { transpose_left, transpose_right, widen: false }, &[right])
}

/// With L' and R' the sides as multiplied: dL' = dy R'^T and dR' = L'^T dy, each transposed back where its side was.
pub(super) fn matmul(
    [left, right]: [&LazyTensor; 2],
    dy: &LazyTensor,
    transpose_left: bool,
    transpose_right: bool,
    wanted: &[bool],
) -> Vec<Option<LazyTensor>> {
    let dleft = || {
        if transpose_left {
            multiply(right, dy, transpose_right, true)
        } else {
            multiply(dy, right, false, !transpose_right)
        }
    };
    let dright = || {
        if transpose_right {
            multiply(dy, left, true, transpose_left)
        } else {
            multiply(left, dy, !transpose_left, false)
        }
    };
    vec![wanted[0].then(dleft), wanted[1].then(dright)]
}

/// y = x W^T + scale * u v^T + residual: dx = dy W, du = scale * dy v, dv = scale * dy^T u, and for a trained weight
/// dW = dy^T x.
pub(super) fn linear(
    inputs: &[&LazyTensor],
    dy: &LazyTensor,
    transpose_weight: bool,
    low_rank: Option<LowRank>,
    residual: bool,
    wanted: &[bool],
) -> Vec<Option<LazyTensor>> {
    let (x, weight) = (inputs[0], inputs[1]);
    let back = Operation::Linear { transpose_weight: !transpose_weight, low_rank: None, residual: false };
    let dweight =
        || if transpose_weight { multiply(x, dy, true, false) } else { multiply(dy, x, true, false) };
    let mut gradients = vec![wanted[0].then(|| dy.then(back, &[weight])), wanted[1].then(dweight)];
    if let Some(LowRank { scale, transpose }) = low_rank {
        let (u, v) = (inputs[2], inputs[3]);
        let [du, dv] = &matmul([u, v], dy, false, !transpose, &wanted[2..4])[..] else { return gradients };
        gradients
            .extend([du, dv].map(|product| product.as_ref().map(|product| product.affine(scale.0, 0.0))));
    }
    if residual {
        gradients.push(Some(dy.clone()));
    }
    gradients
}

/// y = x W[expert]^T in each row: dx = dy W[expert], and for a trained weight dW[e] = dy^T x over the rows of e.
pub(super) fn expert_linear(
    inputs: &[&LazyTensor],
    dy: &LazyTensor,
    transpose_weight: bool,
    wanted: &[bool],
) -> Vec<Option<LazyTensor>> {
    let (x, weight, ids) = (inputs[0], inputs[1], inputs[2]);
    let back = Operation::ExpertLinear { transpose_weight: !transpose_weight };
    let of_weight = Operation::ExpertWeightGrad { experts: weight.dims()[0] };
    let dweight = || {
        let (out, inner) = if transpose_weight { (x, dy) } else { (dy, x) };
        out.then(of_weight, &[inner, ids])
    };
    vec![wanted[0].then(|| dy.then(back, &[weight, ids])), wanted[1].then(dweight), None]
}
