//! Matrix products.

mod grid;
mod scratch;
mod strip;

pub(in crate::kernels) use grid::Grid;
pub(in crate::kernels) use scratch::Scratch;
pub(in crate::kernels) use strip::{Factors, Strip};
