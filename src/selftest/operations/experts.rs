//! Mixtures of experts.

use crate::graph::{LazyTensor, Operation, RouteSide};
use crate::selftest::case::{Case, Leaf, apply};
use crate::selftest::sizes::Sizes;

const CHOSEN: usize = 2;

pub fn cases(sizes: &Sizes) -> Vec<Case> {
    let Sizes { experts, hidden, intermediate, .. } = *sizes;
    let n = sizes.tokens();
    let x = || Leaf::activation(&[n, hidden]);
    let dy = || Leaf::activation(&[n, intermediate]);
    let weight = || Leaf::weight(&[experts, intermediate, hidden]);
    let of_rows = || Leaf::ids(ascending(n, experts));
    let linear = |transpose_weight| Operation::ExpertLinear { transpose_weight };
    vec![
        route(sizes),
        Case::of("ExpertLinear", linear(false), vec![x(), weight(), of_rows()]),
        Case::of("ExpertLinear, gradient", linear(true), vec![dy(), weight(), of_rows()]),
        Case::of("ExpertWeightGrad", Operation::ExpertWeightGrad { experts }, vec![dy(), x(), of_rows()]),
    ]
}

fn route(sizes: &Sizes) -> Case {
    let sides = |leaves: &[LazyTensor]| {
        [RouteSide::Tokens, RouteSide::Experts]
            .into_iter()
            .filter_map(|side| apply(&Operation::Route { chosen: CHOSEN, side }, leaves))
            .collect()
    };
    Case::new("Route", vec![Leaf::activation(&[sizes.tokens(), sizes.experts])], sides)
}

/// Runs of unequal length; the expert before the last has no rows.
fn ascending(rows: usize, experts: usize) -> Vec<u32> {
    let expert = |row: usize| {
        let expert = row * row * experts / (rows * rows);
        if expert + 2 == experts { expert + 1 } else { expert }
    };
    (0..rows).map(|row| expert(row) as u32).collect()
}
