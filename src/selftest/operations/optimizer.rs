//! The norm of all gradients and the update, in f32 whatever the model's type.

use crate::graph::{AdamWSpec, DType, Operation, Scalar};
use crate::selftest::case::{Case, Leaf};
use crate::selftest::sizes::Sizes;

const SINGLE: &[DType] = &[DType::F32];

pub fn cases(sizes: &Sizes) -> Vec<Case> {
    let pair = [[sizes.rank, sizes.hidden], [sizes.intermediate, sizes.rank]];
    let gradients = pair.iter().cycle().take(14).map(|dims| Leaf::single(dims)).collect();
    vec![Case::of("SumOfSquares", Operation::SumOfSquares, gradients).only(SINGLE), adamw(sizes)]
}

/// One tensor with as many elements as a small model's adapters together.
fn adamw(sizes: &Sizes) -> Case {
    let dims = [sizes.rank * sizes.seq, sizes.hidden];
    let spec = AdamWSpec {
        beta1: Scalar(0.9),
        beta2: Scalar(0.999),
        epsilon: Scalar(1e-8),
        weight_decay: Scalar(0.01),
    };
    let leaves = vec![
        Leaf::state(&dims, [-1.0, 1.0]),
        Leaf::single(&dims),
        Leaf::state(&dims, [-0.5, 0.5]),
        Leaf::state(&dims, [0.1, 1.0]),
        Leaf::number(1e-2),
        Leaf::number(3.0),
        Leaf::number(0.5),
    ];
    Case::of("AdamW", Operation::AdamW(spec), leaves).only(SINGLE)
}
