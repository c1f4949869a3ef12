use std::ops::Range;

use crate::error::Result;
use crate::kernels::In;
use crate::kernels::matmul::{Factors, Rows, Side};
use crate::kernels::pack::{Element, PANEL, words};
use crate::kernels::simd::{Isa, Vector, Vectorized};
use crate::kernels::split::expect_len;

/// + scale * u v^T, added while the tile is in registers.
#[derive(Debug, Clone, Copy)]
pub struct LowRankTerm<E> {
    /// [rows, rank]
    pub u: In<E>,
    /// [outputs, rank], or [rank, outputs] where `transpose`.
    pub v: In<E>,
    pub rank: usize,
    pub scale: f32,
    pub transpose: bool,
}

impl<E: Element> LowRankTerm<E> {
    pub fn check(&self, rows: usize, outputs: usize) -> Result<()> {
        expect_len("u of its low-rank term", self.u.len(), rows * self.rank)?;
        expect_len("v of its low-rank term", self.v.len(), outputs * self.rank)
    }

    /// Words of one panel of v, as long as laying it out needs.
    pub fn panel_words(&self) -> usize {
        words::<E>(self.rank).next_multiple_of(PANEL) * PANEL
    }

    /// Words that copies of so many rows of u take.
    pub fn copy_words(&self, rows: usize) -> usize {
        Rows::<E>::scratch_words(rows, self.rank, self.rank)
    }

    /// A panel of v times the scale: [rank / PAIR, PANEL, PAIR].
    pub fn pack(&self, outputs: usize, columns: Range<usize>, isa: Isa, packed: &mut [f32]) {
        let v =
            Side { values: self.v.as_slice(), extent: outputs, inner: self.rank, strided: self.transpose };
        isa.run(ScaledPanel { v, columns, scale: self.scale, packed });
    }

    /// Rows of u times a panel that [`Self::pack`] wrote.
    pub fn factors(&self, rows: Range<usize>, panel: *const f32, copy: &mut [f32]) -> Factors {
        let u = Rows { values: self.u.as_slice(), width: self.rank };
        let (x, x_stride) = u.read(rows, &(0..self.rank), copy);
        Factors { x, x_stride, panel, depth: words::<E>(self.rank), ..Factors::NONE }
    }
}

struct ScaledPanel<'a, E> {
    v: Side<'a, E>,
    columns: Range<usize>,
    scale: f32,
    packed: &'a mut [f32],
}

impl<E: Element> Vectorized for ScaledPanel<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let rank = self.v.inner;
        let (panel, stride) = self.v.panel::<V>(self.columns, &(0..rank), self.packed, PANEL);
        let scale = V::splat(self.scale);
        let to = self.packed.as_mut_ptr();
        // Laid out in `packed`, or where v lies.
        let panel = if std::ptr::eq(panel, to) { to.cast_const() } else { panel };
        for k in 0..words::<E>(rank) {
            for lane in (0..PANEL).step_by(V::LANES) {
                // SAFETY: the panel has so many rows of PANEL words, wherever it lies.
                unsafe {
                    let value = V::load(panel.add(k * stride + lane));
                    let scaled = if E::PAIR == 1 {
                        value.mul(scale)
                    } else {
                        // No closure: it would be compiled without the vectors' instructions.
                        let low = value.low_halves().mul(scale).rounded_to_bf16();
                        low.join_halves(value.high_halves().mul(scale).rounded_to_bf16())
                    };
                    scaled.store(to.add(k * PANEL + lane));
                }
            }
        }
    }
}
