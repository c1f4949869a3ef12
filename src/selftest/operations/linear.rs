//! Linear layers with adapters, and the products that train adapters.

use crate::graph::{DType, LowRank, Operation, Scalar};
use crate::selftest::case::{Case, Leaf};
use crate::selftest::sizes::Sizes;

const SCALE: Scalar = Scalar(2.0);

pub fn cases(sizes: &Sizes) -> Vec<Case> {
    let (n, inputs, outputs, rank) = (sizes.tokens(), sizes.hidden, sizes.intermediate, sizes.rank);
    let linear = |transpose_weight, transpose: Option<bool>, residual| {
        let low_rank = transpose.map(|transpose| LowRank { scale: SCALE, transpose });
        Operation::Linear { transpose_weight, low_rank, residual }
    };
    let x = || Leaf::activation(&[n, inputs]);
    let u = || Leaf::activation(&[n, rank]);
    let dy = || Leaf::activation(&[n, outputs]);
    let weight = || Leaf::weight(&[outputs, inputs]);
    let pair = |v: [usize; 2]| Leaf::activation(&v);
    vec![
        Case::of("Linear", linear(false, None, false), vec![x(), weight()]),
        Case::of(
            "Linear, low rank",
            linear(false, Some(false), false),
            vec![x(), weight(), u(), pair([outputs, rank])],
        ),
        Case::of(
            "Linear, low rank, residual",
            linear(false, Some(false), true),
            vec![x(), weight(), u(), pair([outputs, rank]), dy()],
        ),
        Case::of("Linear, gradient", linear(true, None, false), vec![dy(), weight()]),
        Case::of(
            "Linear, gradient, low rank",
            linear(true, Some(true), true),
            vec![dy(), weight(), u(), pair([rank, inputs]), x()],
        ),
    ]
    .into_iter()
    .chain(products(sizes))
    .collect()
}

/// u = x A^T, du = dy B, dA = du^T x, dB = dy^T u.
fn products(sizes: &Sizes) -> Vec<Case> {
    let (n, inputs, outputs, rank) = (sizes.tokens(), sizes.hidden, sizes.intermediate, sizes.rank);
    let product =
        |transpose_left, transpose_right, widen| Operation::MatMul { transpose_left, transpose_right, widen };
    let leaves = |left: [usize; 2], right: [usize; 2]| {
        let [left, right] = [left, right].map(|dims| Leaf::activation(&dims));
        vec![left, right]
    };
    let gradient = |widen| product(true, false, widen);
    vec![
        Case::of("MatMul, x A^T", product(false, true, false), leaves([n, inputs], [rank, inputs])),
        Case::of("MatMul, dy B", product(false, false, false), leaves([n, outputs], [outputs, rank])),
        Case::of("MatMul, dA", gradient(false), leaves([n, rank], [n, inputs])),
        Case::of("MatMul, dB", gradient(false), leaves([n, outputs], [n, rank])),
        Case::of("MatMul, dA in f32", gradient(true), leaves([n, rank], [n, inputs])).only(&[DType::Bf16]),
    ]
}
