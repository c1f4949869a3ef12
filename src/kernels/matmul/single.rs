use std::ops::Range;

use super::{Factors, Grid, Kernel, MatMul, MatMulSpec, Scratch, Strip, TILE_ROWS};
use crate::kernels::pack::PANEL;

/// Rows per part where panels of the right side are read in place.
const BLOCK_ROWS: usize = 4 * TILE_ROWS;
/// Rows per part where each part packs them first.
const PACKING_BLOCK_ROWS: usize = 8 * TILE_ROWS;
/// Longest run of k in one pass: a packed panel and the rows' lines of a transposed left side stay in cache.
const BLOCK_INNER: usize = 256;
/// Rows whose addresses differ by a multiple of this many bytes fall into the same cache set.
const ALIASING_BYTES: usize = 4096;

impl MatMul<f32> {
    fn grid(&self) -> Grid {
        let MatMulSpec { rows, inner, columns, .. } = self.spec;
        let block_rows = if self.packs(0) { PACKING_BLOCK_ROWS } else { BLOCK_ROWS };
        Grid::new(rows, block_rows, columns, inner * PANEL * size_of::<f32>())
    }

    /// Whether a panel of the right side cannot be read where it lies.
    fn packs(&self, panel: usize) -> bool {
        let MatMulSpec { columns, transpose_right, .. } = self.spec;
        let aliases = (columns * size_of::<f32>()).is_multiple_of(ALIASING_BYTES);
        transpose_right || aliases || columns < (panel + 1) * PANEL
    }

    /// Copies rows `inner` of a panel into [inner, PANEL]; columns beyond the last are zero.
    fn pack(&self, right: &[f32], inner: &Range<usize>, columns: Range<usize>, packed: &mut [f32]) {
        let (step, stride) = self.right_strides();
        for (k, row) in inner.clone().zip(packed.chunks_exact_mut(PANEL)) {
            let (values, beyond) = row.split_at_mut(columns.len());
            beyond.fill(0.0);
            if stride == 1 {
                values.copy_from_slice(&right[k * step..][columns.clone()]);
            } else {
                for (column, value) in columns.clone().zip(values) {
                    *value = right[k * step + column * stride];
                }
            }
        }
    }
}

impl Kernel for MatMul<f32> {
    fn parts(&self) -> usize {
        self.spec.batch * self.grid().parts()
    }

    fn scratch_bytes(&self) -> usize {
        self.spec.inner.min(BLOCK_INNER) * PANEL * size_of::<f32>()
    }

    fn run(&self, part: usize, scratch: &mut [u8]) {
        let MatMulSpec { rows, inner, columns, isa, .. } = self.spec;
        let grid = self.grid();
        let matrix = part / grid.parts();
        let (block, panels) = grid.part(part % grid.parts());
        let left = &self.left.as_slice()[matrix * rows * inner..][..rows * inner];
        let right = &self.right.as_slice()[matrix * inner * columns..][..inner * columns];
        let (x_stride, x_step) = self.left_strides();
        let packed = Scratch::new(scratch).rest();
        for start in (0..inner.max(1)).step_by(BLOCK_INNER) {
            let run = start..inner.min(start + BLOCK_INNER);
            for panel in panels.clone() {
                let first = panel * PANEL;
                let width = grid.panel_columns(panel);
                let (panel, panel_stride) = if self.packs(panel) {
                    self.pack(right, &run, first..first + width, packed);
                    (packed.as_ptr(), PANEL)
                } else {
                    (right.as_ptr().wrapping_add(start * columns + first), columns)
                };
                let x = left.as_ptr().wrapping_add(block.start * x_stride + start * x_step);
                let at = (matrix * rows + block.start) * columns + first;
                let strip = Strip {
                    base: Factors {
                        x,
                        x_stride,
                        x_step,
                        panel,
                        panel_stride,
                        depth: run.len(),
                        next: std::ptr::null(),
                    },
                    low_rank: Factors::NONE,
                    residual: std::ptr::null(),
                    y: self.product.as_mut_ptr().wrapping_add(at),
                    y_stride: columns,
                    rows: block.len(),
                    columns: width,
                    accumulate: start > 0,
                };
                // SAFETY: `new` checked every length against the extents; the grid's parts do not overlap.
                unsafe { strip.compute(isa) };
            }
        }
    }
}
