//! What the gradient of a gated unit makes of a linear layer's product while that is near.

use std::ops::Range;

use crate::error::Result;
use crate::graph::GateFunction;
use crate::kernels::gated::{Gate, GeluTanh, Silu, gradient};
use crate::kernels::matmul::{After, Fetch};
use crate::kernels::pack::{Element, PANEL};
use crate::kernels::simd::{Isa, Vector, Vectorized};
use crate::kernels::split::expect_len;
use crate::kernels::{In, Out};

/// dgate, dup and perhaps f(gate) * up, for a dy that exists a block at a time. All are [rows, outputs].
#[derive(Debug, Clone, Copy)]
pub struct GatedGradient<E> {
    pub function: GateFunction,
    pub gate: In<E>,
    pub up: In<E>,
    pub dgate: Out<E>,
    pub dup: Out<E>,
    pub value: Option<Out<E>>,
}

impl<E: Element> GatedGradient<E> {
    pub(super) fn check(&self, rows: usize, outputs: usize) -> Result<()> {
        expect_len("the gate", self.gate.len(), rows * outputs)?;
        expect_len("the up projection", self.up.len(), rows * outputs)?;
        expect_len("the gate's gradient", self.dgate.len(), rows * outputs)?;
        expect_len("the up projection's gradient", self.dup.len(), rows * outputs)?;
        expect_len("the gated unit", self.value.map_or(rows * outputs, |value| value.len()), rows * outputs)
    }

    /// What is touched from element `at` on.
    pub(super) fn fetch(&self, at: usize, outputs: usize) -> Fetch {
        let value = self.value.map_or(std::ptr::null_mut(), |value| value.as_mut_ptr().wrapping_add(at));
        let read = [self.gate, self.up].map(|from| from.as_slice()[at..].as_ptr().cast());
        let written = [self.dgate, self.dup].map(|to| to.as_mut_ptr().wrapping_add(at).cast_const().cast());
        Fetch::After(After {
            read,
            written: [written[0], written[1], value.cast_const().cast()],
            element: size_of::<E>(),
            stride: outputs,
        })
    }

    /// Writes what belongs to a block, given its part of dy, [rows, PANEL].
    ///
    /// # Safety
    /// No other thread touches these rows and columns of the outputs.
    pub(super) unsafe fn write(
        &self,
        rows: Range<usize>,
        columns: Range<usize>,
        outputs: usize,
        (isa, dy): (Isa, &[E]),
    ) {
        let block = Block { to: self, rows, columns, outputs, dy };
        match self.function {
            GateFunction::Silu => isa.run(Through::<E, Silu>(block, std::marker::PhantomData)),
            GateFunction::GeluTanh => isa.run(Through::<E, GeluTanh>(block, std::marker::PhantomData)),
        }
    }
}

struct Block<'a, E> {
    to: &'a GatedGradient<E>,
    rows: Range<usize>,
    columns: Range<usize>,
    outputs: usize,
    dy: &'a [E],
}

/// A block whose gate goes through a function.
struct Through<'a, E, G>(Block<'a, E>, std::marker::PhantomData<G>);

impl<E: Element, G: Gate> Vectorized for Through<'_, E, G> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Block { to, rows, columns, outputs, dy } = self.0;
        for (row, dy) in rows.zip(dy.chunks_exact(PANEL)) {
            let at = row * outputs + columns.start..row * outputs + columns.end;
            let inputs = [&to.gate.as_slice()[at.clone()], &to.up.as_slice()[at.clone()], &dy[..at.len()]];
            // SAFETY: as promised by the caller of `write`.
            unsafe {
                let value = to.value.as_ref().map(|value| value.range(at.clone()));
                gradient::<V, E, G>(inputs, [to.dgate.range(at.clone()), to.dup.range(at)], value);
            }
        }
    }
}
