//! CPU kernels: one folder per fused operation, `plain` for the rest.
//!
//! A kernel is bound to its memory once, then run part by part. Parts split the *output*, never a sum, so however many
//! there are, any number of threads, in any order, gives the same bits.

pub mod adamw;
pub mod allocations;
pub mod attention;
pub mod bias;
pub mod body;
mod build;
pub mod cross_entropy;
pub mod experts;
#[cfg(test)]
mod fused_tests;
pub mod gated;
mod lanes;
pub mod linear;
pub mod matmul;
mod memory;
pub mod metal;
pub mod number;
pub mod pack;
pub mod plain;
pub mod rms_norm;
pub mod rope;
pub mod simd;
mod span;
pub mod split;
pub mod sum_of_squares;
#[cfg(test)]
mod testing;

pub use build::{build, packed_bytes};
pub use memory::{Memory, Operand};
pub use span::{In, Out};

/// One operation bound to its memory, as independent parts.
pub trait Kernel: Send + Sync {
    /// How many parts there are: fixed by shapes alone. Zero where there is nothing to do.
    fn parts(&self) -> usize;

    /// Computes one part. `scratch` is this thread's own memory, at least [`Kernel::scratch_bytes`] long and aligned
    /// to 64 bytes; its contents are whatever the last kernel left.
    fn run(&self, part: usize, scratch: &mut [u8]);

    /// Scratch memory one thread needs.
    fn scratch_bytes(&self) -> usize {
        0
    }
}
