//! The output projection with its cross-entropy, and gradients.

use crate::graph::{IGNORE_TARGET, LazyTensor, Operation, Scalar};
use crate::selftest::case::{Case, Element, Leaf};
use crate::selftest::sizes::Sizes;

pub fn cases(sizes: &Sizes) -> Vec<Case> {
    [("", None), (", soft cap", Some(Scalar(3.0)))]
        .into_iter()
        .flat_map(|(what, soft_cap)| {
            [loss(what, soft_cap, sizes), gradient(what, soft_cap, sizes), of_weight(what, soft_cap, sizes)]
        })
        .collect()
}

/// Hidden states, the projection and targets.
fn operands(sizes: &Sizes) -> Vec<Leaf> {
    vec![
        Leaf::activation(&[sizes.tokens(), sizes.hidden]),
        Leaf::weight(&[sizes.vocab, sizes.hidden]),
        Leaf::ids(sizes.ids(sizes.vocab, IGNORE_TARGET)),
    ]
}

fn forward(soft_cap: Option<Scalar>) -> impl Fn(&[LazyTensor]) -> LazyTensor {
    move |leaves| leaves[0].then(Operation::ProjectedCrossEntropy { soft_cap }, &[&leaves[1], &leaves[2]])
}

fn backward(soft_cap: Option<Scalar>, leaves: &[LazyTensor]) -> LazyTensor {
    let operation = Operation::ProjectedCrossEntropyGrad { soft_cap };
    leaves[0].then(operation, &[&leaves[1], &leaves[2], &leaves[3]])
}

fn loss(what: &str, soft_cap: Option<Scalar>, sizes: &Sizes) -> Case {
    let forward = forward(soft_cap);
    Case::new(format!("ProjectedCrossEntropy{what}"), operands(sizes), move |leaves| vec![forward(leaves)])
}

/// dhidden, which has a formula, then what the kernel also gives: the loss and the log-sum-exp.
fn gradient(what: &str, soft_cap: Option<Scalar>, sizes: &Sizes) -> Case {
    let mut leaves = operands(sizes);
    leaves.push(Leaf::single(&[sizes.tokens()]));
    let kernel = move |leaves: &[LazyTensor]| {
        let gradient = backward(soft_cap, leaves);
        [2, 0, 1].map(|output| gradient.output(output)).to_vec()
    };
    let case = Case::new(format!("ProjectedCrossEntropyGrad{what}"), leaves, kernel);
    case.derivative(forward(soft_cap), 3, &[0])
}

fn of_weight(what: &str, soft_cap: Option<Scalar>, sizes: &Sizes) -> Case {
    let mut leaves = operands(sizes);
    let tokens = [sizes.tokens()];
    leaves.push(Leaf::single(&tokens));
    leaves.push(Leaf::made(&tokens, Element::Single, move |leaves| backward(soft_cap, leaves).output(1)));
    let kernel = move |leaves: &[LazyTensor]| {
        let others: Vec<&LazyTensor> = leaves[1..].iter().collect();
        vec![leaves[0].then(Operation::ProjectedCrossEntropyWeightGrad { soft_cap }, &others)]
    };
    let case = Case::new(format!("ProjectedCrossEntropyWeightGrad{what}"), leaves, kernel);
    case.derivative(forward(soft_cap), 3, &[1])
}
