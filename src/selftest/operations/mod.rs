//! Every operation that runs in a training step, with operands of given sizes.

mod attention;
mod experts;
mod linear;
mod loss;
mod optimizer;
mod plain;
mod rows;

use super::case::Case;
use super::sizes::Sizes;

pub use plain::{copy, product};

/// In the order of a step, forward before backward.
pub fn cases(sizes: &Sizes) -> Vec<Case> {
    [
        rows::cases,
        attention::cases,
        linear::cases,
        experts::cases,
        loss::cases,
        optimizer::cases,
        plain::cases,
    ]
    .iter()
    .flat_map(|cases| cases(sizes))
    .collect()
}
