//! Vectors of f32 for the machine at hand, and kernels compiled once per instruction set.
//!
//! A kernel's body is generic over [`Lanes`] and inlined into a function that has the instruction set enabled, so its
//! plain loops are vectorized for that set too.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod exp;
mod portable;

pub use exp::exp;
pub use portable::Portable;

use super::Kernel;

/// One instruction set's vectors of f32. Implementations are only reachable where the machine has the set.
pub trait Lanes: Copy + 'static {
    /// f32 values in a vector.
    const WIDTH: usize;
    /// Rows of a register tile that is two vectors wide.
    const TILE_ROWS: usize;
    type Vector: Copy;

    fn splat(value: f32) -> Self::Vector;
    /// # Safety
    /// `from` points to [`Lanes::WIDTH`] readable values.
    unsafe fn load(from: *const f32) -> Self::Vector;
    /// # Safety
    /// `to` points to [`Lanes::WIDTH`] writable values.
    unsafe fn store(to: *mut f32, value: Self::Vector);
    fn add(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn sub(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn mul(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// a * b + c, rounded once where the set can.
    fn fma(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// The larger; NaN where `b` is.
    fn max(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `value * 2^n` where `n` is the integer in the low bits of `shifted`.
    fn scale_by_power(value: Self::Vector, shifted: Self::Vector) -> Self::Vector;
    /// `value`, or 0 where `x < bound`.
    fn zero_where_below(value: Self::Vector, x: Self::Vector, bound: Self::Vector) -> Self::Vector;
    /// Transposes a block of WIDTH rows and columns.
    ///
    /// # Safety
    /// Both pointers are the first element of such a block in a matrix with the given values from row to row.
    unsafe fn transpose(from: *const f32, from_row: usize, to: *mut f32, to_row: usize);
}

/// A kernel whose parts are compiled for every instruction set; it is a [`Kernel`] by that.
pub trait Body: Send + Sync {
    /// As [`Kernel::parts`].
    fn parts(&self) -> usize;

    /// As [`Kernel::run`]. Must be `#[inline(always)]` to be compiled for the instruction set of `L`.
    fn compute<L: Lanes>(&self, part: usize, scratch: &mut [u8]);

    /// As [`Kernel::scratch_bytes`].
    fn scratch_bytes(&self) -> usize {
        0
    }
}

impl<B: Body> Kernel for B {
    fn parts(&self) -> usize {
        Body::parts(self)
    }

    fn run(&self, part: usize, scratch: &mut [u8]) {
        #[cfg(target_arch = "x86_64")]
        {
            if avx512::available() {
                // SAFETY: the machine was just asked.
                return unsafe { avx512::run(self, part, scratch) };
            }
            if avx2::available() {
                // SAFETY: the machine was just asked.
                return unsafe { avx2::run(self, part, scratch) };
            }
        }
        self.compute::<Portable>(part, scratch);
    }

    fn scratch_bytes(&self) -> usize {
        Body::scratch_bytes(self)
    }
}
