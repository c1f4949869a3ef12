//! Row-wise and elementwise operations of a decoder layer.

use crate::graph::{IGNORE_TARGET, LazyTensor, Operation, Scalar};
use crate::selftest::case::{Case, Leaf, apply};
use crate::selftest::sizes::Sizes;

const EPSILON: f64 = 1e-5;

pub fn cases(sizes: &Sizes) -> Vec<Case> {
    let mut cases = vec![embedding(sizes)];
    cases.extend(norms(sizes));
    cases.extend(ropes(sizes));
    let (wide, bias) = ([sizes.tokens(), sizes.hidden], [sizes.hidden]);
    cases.push(Case::of("AddBias", Operation::AddBias, vec![Leaf::activation(&wide), Leaf::weight(&bias)]));
    cases.extend(gates(sizes));
    cases
}

fn embedding(sizes: &Sizes) -> Case {
    let table = Leaf::weight(&[sizes.vocab, sizes.hidden]);
    let ids = Leaf::ids(sizes.ids(sizes.vocab, IGNORE_TARGET));
    Case::of("Embedding", Operation::Embedding, vec![table, ids])
}

fn norms(sizes: &Sizes) -> Vec<Case> {
    let (wide, weight) = ([sizes.tokens(), sizes.hidden], [sizes.hidden]);
    let epsilon = Scalar(EPSILON);
    let forward = |leaves: &[LazyTensor]| leaves[0].rms_norm(&leaves[1], EPSILON);
    let leaves = || vec![Leaf::activation(&wide), Leaf::weight(&weight)];
    let with_dy = || leaves().into_iter().chain([Leaf::activation(&wide)]).collect::<Vec<_>>();
    let gradient = |weight_gradient| Operation::RmsNormGrad { epsilon, weight_gradient, residual: false };
    let (frozen, trained) = (gradient(false), gradient(true));
    let both = move |leaves: &[LazyTensor]| {
        let outputs = |y: LazyTensor| [y.output(0), y.output(1)];
        apply(&trained, leaves).map(outputs).into_iter().flatten().collect()
    };
    vec![
        Case::of("RmsNorm", Operation::RmsNorm { epsilon }, leaves()),
        Case::of("RmsNormGrad", frozen, with_dy()).derivative(forward, 2, &[0]),
        Case::new("RmsNormGrad, trained weight", with_dy(), both).derivative(forward, 2, &[0, 1]),
    ]
}

fn ropes(sizes: &Sizes) -> Vec<Case> {
    let head_dim = sizes.head_dim;
    let (wide, angles) = ([sizes.tokens(), sizes.heads * head_dim], [sizes.tokens(), head_dim / 2]);
    let leaves = || vec![Leaf::activation(&wide), Leaf::single(&angles), Leaf::single(&angles)];
    vec![
        Case::of("Rope", Operation::Rope { head_dim, inverse: false }, leaves()),
        Case::of("Rope, gradient", Operation::Rope { head_dim, inverse: true }, leaves()),
    ]
}

fn gates(sizes: &Sizes) -> Vec<Case> {
    let dims = [sizes.tokens(), sizes.intermediate];
    let leaves = |count| (0..count).map(|_| Leaf::activation(&dims)).collect::<Vec<_>>();
    let gradient = |name: &str, operation: Operation, forward: fn(&[LazyTensor]) -> LazyTensor| {
        let both = move |leaves: &[LazyTensor]| {
            let outputs = |y: LazyTensor| [y.output(0), y.output(1)];
            apply(&operation, leaves).map(outputs).into_iter().flatten().collect()
        };
        Case::new(name, leaves(3), both).derivative(forward, 2, &[0, 1])
    };
    vec![
        Case::of("SwiGlu", Operation::SwiGlu, leaves(2)),
        gradient("SwiGluGrad", Operation::SwiGluGrad, |leaves| leaves[0].swiglu(&leaves[1])),
        Case::of("GeGlu", Operation::GeGlu, leaves(2)),
        gradient("GeGluGrad", Operation::GeGluGrad, |leaves| leaves[0].geglu(&leaves[1])),
    ]
}
