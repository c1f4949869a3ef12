//! y = x W^T (+ scale u v^T) (+ residual), W packed.

#[cfg(test)]
mod speed;
#[cfg(test)]
mod tests;

use std::ops::Range;

use super::matmul::{Factors, Grid, Scratch, Strip, TILE_ROWS};
use super::pack::{PANEL, packed_len};
use super::simd::Isa;
use super::split::expect_len;
use super::{In, Kernel, Out};
use crate::error::Result;

/// Rows per part: few enough that 2048 rows keep many threads evenly busy.
const BLOCK_ROWS: usize = 4 * TILE_ROWS;
/// Longest run of k that one pass over a row block takes: rows and panel stay in the second-level cache.
const BLOCK_INPUTS: usize = 1536;
/// Rows of x whose addresses differ by a multiple of this many bytes fall into the same cache set.
const ALIASING_BYTES: usize = 4096;
/// Elements that keep copied rows apart from each other's cache sets.
const ROW_PADDING: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinearSpec {
    pub rows: usize,
    /// k
    pub inputs: usize,
    /// n
    pub outputs: usize,
    pub isa: Isa,
}

/// + scale * u v^T, added while the tile is in registers.
#[derive(Debug, Clone, Copy)]
pub struct LowRankTerm {
    /// [rows, rank]
    pub u: In<f32>,
    /// [outputs, rank], or [rank, outputs] where `transpose`.
    pub v: In<f32>,
    pub rank: usize,
    pub scale: f32,
    pub transpose: bool,
}

#[derive(Debug)]
pub struct Linear {
    x: In<f32>,
    packed: In<f32>,
    low_rank: Option<LowRankTerm>,
    residual: Option<In<f32>>,
    y: Out<f32>,
    spec: LinearSpec,
    grid: Grid,
}

impl Linear {
    /// `x` [rows, inputs], `packed` as [`super::pack::Pack`] lays it out, `residual` and `y` [rows, outputs].
    ///
    /// # Errors
    /// If the memory does not have the lengths that the extents ask for.
    pub fn new(
        x: In<f32>,
        packed: In<f32>,
        low_rank: Option<LowRankTerm>,
        residual: Option<In<f32>>,
        y: Out<f32>,
        spec: LinearSpec,
    ) -> Result<Self> {
        let LinearSpec { rows, inputs, outputs, .. } = spec;
        expect_len("the input of a linear layer", x.len(), rows * inputs)?;
        expect_len("its packed weight", packed.len(), packed_len::<f32>(outputs, inputs))?;
        expect_len("its output", y.len(), rows * outputs)?;
        if let Some(term) = &low_rank {
            expect_len("u of its low-rank term", term.u.len(), rows * term.rank)?;
            expect_len("v of its low-rank term", term.v.len(), outputs * term.rank)?;
        }
        if let Some(residual) = &residual {
            expect_len("its residual", residual.len(), rows * outputs)?;
        }
        let grid = Grid::new(rows, BLOCK_ROWS, outputs, inputs * PANEL * size_of::<f32>());
        Ok(Self { x, packed, low_rank, residual, y, spec, grid })
    }

    /// Runs of k, of nearly equal length.
    fn input_blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let inputs = self.spec.inputs;
        let blocks = inputs.div_ceil(BLOCK_INPUTS).max(1);
        (0..blocks).map(move |i| inputs * i / blocks..inputs * (i + 1) / blocks)
    }

    fn copies_rows(&self) -> bool {
        self.spec.inputs > 0 && (self.spec.inputs * size_of::<f32>()).is_multiple_of(ALIASING_BYTES)
    }

    fn copied_stride(&self) -> usize {
        self.spec.inputs.min(BLOCK_INPUTS) + ROW_PADDING
    }

    /// Panel of v times the scale: [rank, PANEL].
    fn pack_low_rank(&self, term: &LowRankTerm, panel: usize, packed: &mut [f32]) {
        let first = panel * PANEL;
        let columns = self.grid.panel_columns(panel);
        let v = term.v.as_slice();
        packed.fill(0.0);
        for (k, row) in packed.chunks_exact_mut(PANEL).enumerate() {
            for (column, value) in row[..columns].iter_mut().enumerate() {
                let at = if term.transpose {
                    k * self.spec.outputs + first + column
                } else {
                    (first + column) * term.rank + k
                };
                *value = v[at] * term.scale;
            }
        }
    }

    fn low_rank_factors(&self, term: &LowRankTerm, row: usize, panel: usize, v_panel: &mut [f32]) -> Factors {
        self.pack_low_rank(term, panel, v_panel);
        Factors {
            x: term.u.as_slice().as_ptr().wrapping_add(row * term.rank),
            x_stride: term.rank,
            panel: v_panel.as_ptr(),
            panel_stride: PANEL,
            depth: term.rank,
            ..Factors::NONE
        }
    }

    fn packed_panel(&self, panel: usize, inputs: &Range<usize>) -> *const f32 {
        self.packed.as_slice().as_ptr().wrapping_add((panel * self.spec.inputs + inputs.start) * PANEL)
    }

    /// The rows of x a pass multiplies, and their stride: where they are, or copied out of each other's way.
    fn input_rows(
        &self,
        rows: &Range<usize>,
        inputs: &Range<usize>,
        copy: &mut [f32],
    ) -> (*const f32, usize) {
        let x = self.x.as_slice();
        let stride = self.spec.inputs;
        if !self.copies_rows() {
            return (x.as_ptr().wrapping_add(rows.start * stride + inputs.start), stride);
        }
        for (row, to) in rows.clone().zip(copy.chunks_exact_mut(self.copied_stride())) {
            to[..inputs.len()].copy_from_slice(&x[row * stride..][inputs.clone()]);
        }
        (copy.as_ptr(), self.copied_stride())
    }
}

impl Kernel for Linear {
    fn parts(&self) -> usize {
        self.grid.parts()
    }

    fn scratch_bytes(&self) -> usize {
        let rank = self.low_rank.map_or(0, |term| term.rank);
        let copied = if self.copies_rows() { self.grid.block_rows() * self.copied_stride() } else { 0 };
        (rank * PANEL + copied) * size_of::<f32>()
    }

    fn run(&self, part: usize, scratch: &mut [u8]) {
        let LinearSpec { inputs: depth, outputs, isa, .. } = self.spec;
        let (rows, panels) = self.grid.part(part);
        let mut scratch = Scratch::new(scratch);
        let v_panel = scratch.take(self.low_rank.map_or(0, |term| term.rank) * PANEL);
        let copy = scratch.rest();
        for inputs in self.input_blocks() {
            let (x, x_stride) = self.input_rows(&rows, &inputs, copy);
            let last = inputs.end == depth;
            let low_rank = self.low_rank.filter(|_| last);
            let residual = self.residual.filter(|_| last);
            for panel in panels.clone() {
                let at = rows.start * outputs + panel * PANEL;
                let base = Factors {
                    x,
                    x_stride,
                    x_step: 1,
                    panel: self.packed_panel(panel, &inputs),
                    panel_stride: PANEL,
                    depth: inputs.len(),
                    next: self.packed_panel((panel + 1).min(panels.end - 1), &inputs),
                };
                let strip = Strip {
                    base,
                    low_rank: low_rank.map_or(Factors::NONE, |term| {
                        self.low_rank_factors(&term, rows.start, panel, v_panel)
                    }),
                    residual: residual.map_or(std::ptr::null(), |r| r.as_slice().as_ptr().wrapping_add(at)),
                    y: self.y.as_mut_ptr().wrapping_add(at),
                    y_stride: outputs,
                    rows: rows.len(),
                    columns: self.grid.panel_columns(panel),
                    accumulate: inputs.start > 0,
                };
                // SAFETY: `new` checked every length against the extents; the grid's parts do not overlap.
                unsafe { strip.compute(isa) };
            }
        }
    }
}
