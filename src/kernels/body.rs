//! Kernels compiled once for every instruction set.
//!
//! A kernel's body is generic over [`Vector`] and inlined into a function that has the instruction set enabled, so its
//! plain loops are vectorized for that set too.

use super::Kernel;
use super::simd::{Isa, Vector, Vectorized};

/// A kernel whose parts are compiled for every instruction set; it is a [`Kernel`] by that.
pub trait Body: Send + Sync {
    /// As [`Kernel::parts`].
    fn parts(&self) -> usize;

    /// As [`Kernel::run`]. Must be `#[inline(always)]` to be compiled for the instruction set of `V`.
    fn compute<V: Vector>(&self, part: usize, scratch: &mut [u8]);

    /// As [`Kernel::scratch_bytes`].
    fn scratch_bytes(&self) -> usize {
        0
    }
}

/// One part of a body, to be run with an instruction set.
struct Part<'a, B> {
    body: &'a B,
    part: usize,
    scratch: &'a mut [u8],
}

impl<B: Body> Vectorized for Part<'_, B> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        self.body.compute::<V>(self.part, self.scratch);
    }
}

impl<B: Body> Kernel for B {
    fn parts(&self) -> usize {
        Body::parts(self)
    }

    fn run(&self, part: usize, scratch: &mut [u8]) {
        chosen().run(Part { body: self, part, scratch });
    }

    fn scratch_bytes(&self) -> usize {
        Body::scratch_bytes(self)
    }
}

#[cfg(not(test))]
fn chosen() -> Isa {
    Isa::detect()
}

/// What the test asked for on this thread, or the machine's best.
#[cfg(test)]
fn chosen() -> Isa {
    FORCED.get().unwrap_or_else(Isa::detect)
}

#[cfg(test)]
thread_local! {
    /// What a test wants bodies on this thread to run with.
    pub(crate) static FORCED: std::cell::Cell<Option<Isa>> = const { std::cell::Cell::new(None) };
}
