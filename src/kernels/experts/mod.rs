//! Mixtures of experts: rows go through the matrices of the experts that they are routed to.
//!
//! Rows come sorted by expert, so that the rows of one expert are a matrix, and its product is one of
//! [`MatMul`](super::matmul::MatMul). How many rows an expert has is known only when a kernel runs: the number of parts
//! is fixed, and each part takes every so-many-th block of all products. An expert without rows costs nothing.

mod product;
mod route;
#[cfg(test)]
mod speed;
#[cfg(test)]
mod tests;
mod weight_gradient;

use std::ops::Range;

pub use product::ExpertLinear;
pub use route::{Route, RouteSpec, routes};
pub use weight_gradient::ExpertWeightGrad;

/// Parts that the blocks of all products are dealt out to.
const PARTS: usize = 48;

/// The runs of equal ids: the expert and its rows.
pub fn runs(experts: &[u32]) -> impl Iterator<Item = (usize, Range<usize>)> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let &expert = experts.get(start)?;
        let length = experts[start..].iter().take_while(|&&other| other == expert).count();
        let rows = start..start + length;
        start = rows.end;
        Some((expert as usize, rows))
    })
}
