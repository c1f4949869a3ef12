use std::ops::Range;

use crate::error::Result;
use crate::kernels::In;
use crate::kernels::matmul::{Factors, Rows};
use crate::kernels::pack::{Element, PANEL, words};
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

    /// Words of one panel of v.
    pub fn panel_words(&self) -> usize {
        words::<E>(self.rank) * PANEL
    }

    /// Words that copies of so many rows of u take.
    pub fn copy_words(&self, rows: usize) -> usize {
        Rows::<E>::scratch_words(rows, self.rank, self.rank)
    }

    /// A panel of v times the scale: [rank / PAIR, PANEL, PAIR].
    pub fn pack(&self, outputs: usize, columns: Range<usize>, packed: &mut [E]) {
        let v = self.v.as_slice();
        packed.fill(E::narrow(0.0));
        for (column, output) in columns.enumerate() {
            for k in 0..self.rank {
                let at = if self.transpose { k * outputs + output } else { output * self.rank + k };
                let to = (k / E::PAIR * PANEL + column) * E::PAIR + k % E::PAIR;
                packed[to] = E::narrow(v[at].widen() * self.scale);
            }
        }
    }

    /// Rows of u times a panel that [`Self::pack`] wrote.
    pub fn factors(&self, rows: Range<usize>, panel: *const f32, copy: &mut [f32]) -> Factors {
        let u = Rows { values: self.u.as_slice(), width: self.rank };
        let (x, x_stride) = u.read(rows, &(0..self.rank), copy);
        Factors { x, x_stride, panel, depth: words::<E>(self.rank), ..Factors::NONE }
    }
}
