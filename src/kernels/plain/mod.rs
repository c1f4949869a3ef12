//! Plain operations: correct for every shape and float type; only their inner loops are made to vectorize.

mod copy;
mod elementwise;
mod generate;
mod indexed;
mod reduce;
#[cfg(test)]
mod tests;

pub use copy::{Concat, Copy, StridedCopy, WriteRows};
pub use elementwise::{Affine, Binary, Cast, Unary};
pub use generate::{AttentionMask, CacheMask, DropoutMask, Fill, MASKED, RopeTable};
pub use indexed::{Embedding, ScatterLast, ScatterRows, TakeLast};
pub use reduce::Reduce;
