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

/// The sets that kernels are compiled for, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstructionSet {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl InstructionSet {
    pub const ALL: &[Self] = &[
        #[cfg(target_arch = "x86_64")]
        Self::Avx512,
        #[cfg(target_arch = "x86_64")]
        Self::Avx2,
        Self::Portable,
    ];

    /// Whether this machine has it.
    pub fn available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => avx512::available(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => avx2::available(),
            Self::Portable => true,
        }
    }

    #[cfg(not(test))]
    fn chosen() -> Self {
        Self::best()
    }

    /// The set that the test asked for on this thread, or the best.
    #[cfg(test)]
    fn chosen() -> Self {
        FORCED.get().filter(|set| set.available()).unwrap_or_else(Self::best)
    }

    fn best() -> Self {
        Self::ALL.iter().copied().find(|set| set.available()).unwrap_or(Self::Portable)
    }
}

#[cfg(test)]
thread_local! {
    /// What a test wants kernels on this thread to run with.
    pub(crate) static FORCED: std::cell::Cell<Option<InstructionSet>> = const { std::cell::Cell::new(None) };
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
        match InstructionSet::chosen() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: only an available set is chosen.
            InstructionSet::Avx512 => unsafe { avx512::run(self, part, scratch) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            InstructionSet::Avx2 => unsafe { avx2::run(self, part, scratch) },
            InstructionSet::Portable => self.compute::<Portable>(part, scratch),
        }
    }

    fn scratch_bytes(&self) -> usize {
        Body::scratch_bytes(self)
    }
}
