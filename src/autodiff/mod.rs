//! Reverse-mode differentiation: gradients are more nodes of the same graph.

mod matrix;
mod plain;
mod reverse;
mod vjp;

pub use reverse::gradients;
