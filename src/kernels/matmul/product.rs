use std::ops::Range;

use super::folded::FoldedStrip;
use super::side::{Side, Words};
use super::{
    Block, Factors, Fetch, Grid, Grouped, Kernel, MANY_PARTS, MatMul, MatMulSpec, Partial, Scratch, Strip,
    TILE_ROWS, Written,
};
use crate::kernels::pack::{Element, PANEL, words};
use crate::kernels::simd::{Vector, Vectorized};
use crate::kernels::split::hardware_threads;

/// Rows per part: enough to outweigh laying out the panels.
const BLOCK_ROWS: usize = 8 * TILE_ROWS;
/// Rows per part of a product with few columns, beside which laying out the panel takes longest.
const THIN_BLOCK_ROWS: usize = 256;
/// Words of a panel in one pass over k: it and the lines of a transposed left side stay in the first-level cache.
const PANEL_WORDS: usize = 256 * PANEL;
/// Bytes of panels per part.
const BLOCK_BYTES: usize = 4 << 20;
/// Parts of an f32 product with few rows: each reads neighbouring panels, whose cache lines follow each other. Where
/// panels are laid out first, each asks for the next one, and every thread takes a single part.
const THIN_PARTS: usize = 8;
/// Rows or columns that are few. Where the left side is stored transposed too, the product is computed transposed.
const THIN: usize = PANEL;

impl<E: Element, P: Written + Element> MatMul<E, P> {
    /// Whether the right side gives the rows, so that the wide left side need not be transposed.
    fn is_swapped(&self) -> bool {
        let MatMulSpec { rows, columns, transpose_left, .. } = self.spec;
        transpose_left && columns <= THIN && columns < rows
    }

    /// The rows' and the columns' side of one product of the batch.
    fn sides(&self, matrix: usize) -> (Side<'_, E>, Side<'_, E>) {
        let MatMulSpec { rows, inner, columns, transpose_left, transpose_right, .. } = self.spec;
        let left = &self.left.as_slice()[matrix * rows * inner..][..rows * inner];
        let right = &self.right.as_slice()[matrix * inner * columns..][..inner * columns];
        let left = Side { values: left, extent: rows, inner, strided: transpose_left };
        let right = Side { values: right, extent: columns, inner, strided: !transpose_right };
        if self.is_swapped() { (right, left) } else { (left, right) }
    }

    fn grid(&self) -> Grid {
        let MatMulSpec { rows, inner, columns, .. } = self.spec;
        let (rows, columns) = if self.is_swapped() { (columns, rows) } else { (rows, columns) };
        let panel_bytes = words::<E>(inner) * PANEL * size_of::<f32>();
        let block_rows = if columns <= THIN { THIN_BLOCK_ROWS } else { BLOCK_ROWS };
        let parts = match (rows <= THIN, E::PAIR) {
            (true, 1) => THIN_PARTS,
            (true, _) => hardware_threads(),
            (false, _) => MANY_PARTS,
        };
        Grid::new(rows, columns, Block { rows: block_rows, panel_bytes, bytes: BLOCK_BYTES, parts })
    }

    /// Words from k to k of a panel: half a panel suffices for very few columns.
    fn panel_width(&self) -> usize {
        let columns = self.sides(0).1.extent;
        if columns <= PANEL / 2 { PANEL / 2 } else { PANEL }
    }

    /// Most k in one pass.
    fn run_length(&self) -> usize {
        PANEL_WORDS / self.panel_width() * E::PAIR
    }

    /// Whether sums stay in scratch memory until all k are added.
    fn keeps_sums(&self) -> bool {
        self.is_swapped() || P::PAIR > 1 && self.spec.inner > self.run_length()
    }

    /// Words of scratch memory: rows, a panel, sums.
    fn lengths(&self, grid: &Grid) -> [usize; 3] {
        let run = self.spec.inner.min(self.run_length());
        let rows = self.sides(0).0.rows_scratch(grid.block_rows(), run);
        let panel = words::<E>(run).next_multiple_of(PANEL) * self.panel_width();
        let sums = if self.keeps_sums() { grid.block_rows() * grid.block_panels() * PANEL } else { 0 };
        [rows, panel, sums]
    }
}

impl<E: Element, P: Written + Element> Grouped for MatMul<E, P> {
    fn most_scratch_bytes(spec: &MatMulSpec) -> usize {
        let MatMulSpec { rows, inner, columns, transpose_left, .. } = *spec;
        let run = words::<E>(inner.min(PANEL_WORDS / (PANEL / 2) * E::PAIR));
        // Either side may be the one that is read by rows.
        let (block, thin) = (BLOCK_ROWS.max(THIN), THIN_BLOCK_ROWS.next_multiple_of(TILE_ROWS));
        let copied = thin.min(rows.max(columns)) * (run + PANEL);
        let panel = run.next_multiple_of(PANEL) * PANEL;
        let unswapped = block * columns.next_multiple_of(PANEL) + thin * THIN;
        let swapped = if transpose_left { THIN * rows.next_multiple_of(PANEL) } else { 0 };
        let sums = if P::PAIR > 1 { unswapped.max(swapped) } else { swapped };
        (copied + panel + sums) * size_of::<f32>()
    }
}

impl<E: Element, P: Written + Element> Kernel for MatMul<E, P> {
    fn parts(&self) -> usize {
        self.spec.batch * self.grid().parts()
    }

    fn scratch_bytes(&self) -> usize {
        self.lengths(&self.grid()).iter().sum::<usize>() * size_of::<f32>()
    }

    fn run(&self, part: usize, scratch: &mut [u8]) {
        let grid = self.grid();
        let matrix = part / grid.parts();
        let (rows, panels) = grid.part(part % grid.parts());
        let [copied, panel, sums] = self.lengths(&grid);
        let mut scratch = Scratch::new(scratch);
        let mut pass = Pass {
            product: self,
            grid,
            matrix,
            rows,
            panels,
            copied: scratch.take(copied),
            panel: scratch.take(panel),
            sums: scratch.take(sums),
        };
        let step = self.run_length();
        for start in (0..self.spec.inner.max(1)).step_by(step) {
            pass.add(start..self.spec.inner.min(start + step));
        }
        if self.is_swapped() {
            pass.store_transposed();
        }
    }
}

/// What a part holds while it goes through the runs of k.
struct Pass<'a, E, P> {
    product: &'a MatMul<E, P>,
    grid: Grid,
    matrix: usize,
    rows: Range<usize>,
    panels: Range<usize>,
    copied: &'a mut [f32],
    panel: &'a mut [f32],
    sums: &'a mut [f32],
}

/// Lays out a panel of the columns' side.
struct LayOut<'a, E> {
    side: Side<'a, E>,
    columns: Range<usize>,
    run: &'a Range<usize>,
    to: &'a mut [f32],
    width: usize,
}

impl<E: Element> Vectorized for LayOut<'_, E> {
    type Output = (*const f32, usize);

    #[inline(always)]
    fn run<V: Vector>(self) -> Self::Output {
        self.side.panel::<V>(self.columns, self.run, self.to, self.width)
    }
}

/// Brings the rows' side into words.
struct ReadRows<'a, E> {
    side: Side<'a, E>,
    rows: Range<usize>,
    run: &'a Range<usize>,
    to: &'a mut [f32],
}

impl<E: Element> Vectorized for ReadRows<'_, E> {
    type Output = Words;

    #[inline(always)]
    fn run<V: Vector>(self) -> Words {
        self.side.rows::<V>(self.rows, self.run, self.to)
    }
}

impl<E: Element, P: Written + Element> Pass<'_, E, P> {
    /// Adds the products of one run of k.
    fn add(&mut self, run: Range<usize>) {
        let (rows, columns) = self.product.sides(self.matrix);
        let task = ReadRows { side: rows, rows: self.rows.clone(), run: &run, to: &mut *self.copied };
        let (x, x_stride, x_step) = self.product.spec.isa.run(task);
        for (index, panel) in self.panels.clone().enumerate() {
            let first = panel * PANEL;
            let width = self.grid.panel_columns(panel);
            let task = LayOut {
                side: columns,
                columns: first..first + width,
                run: &run,
                to: &mut *self.panel,
                width: self.product.panel_width(),
            };
            let (panel, panel_stride) = self.product.spec.isa.run(task);
            let at = (self.matrix * rows.extent + self.rows.start) * columns.extent + first;
            let depth = words::<E>(run.len());
            let pairs = E::PAIR == 2;
            let strip = Strip {
                pairs,
                base: Factors { x, x_stride, x_step, panel, panel_stride, depth, ..Factors::NONE },
                low_rank: Factors::NONE,
                partial: self.partial(at, index, &run),
                output: P::output(self.product.product.as_mut_ptr().wrapping_add(at), std::ptr::null()),
                y_stride: columns.extent,
                rows: self.rows.len(),
                columns: width,
                fetch: Fetch::Output,
            };
            let isa = self.product.spec.isa;
            if x_step == 1 && FoldedStrip::suits(isa, pairs, depth, width) {
                FoldedStrip::fold(self.panel, panel_stride, depth);
                // SAFETY: `new` checked every length against the extents; the grid's parts do not overlap.
                unsafe { FoldedStrip(strip).compute(isa) };
            } else {
                // SAFETY: as above.
                unsafe { strip.compute(isa) };
            }
        }
    }

    /// Where sums wait for the next run of k, or to be transposed: in the product if they can.
    fn partial(&mut self, at: usize, panel: usize, run: &Range<usize>) -> Partial {
        let (add, more) = (run.start > 0, run.end < self.product.spec.inner);
        if !self.product.keeps_sums() {
            let (y, stride) = (self.product.product.as_mut_ptr(), self.product.spec.columns);
            return Partial { sums: y.wrapping_add(at).cast(), stride, add, keep: more };
        }
        let sums = self.sums.as_mut_ptr().wrapping_add(panel * PANEL);
        let stride = self.grid.block_panels() * PANEL;
        Partial { sums, stride, add, keep: more || self.product.is_swapped() }
    }

    /// Writes the sums [columns, rows] of a swapped product to [rows, columns].
    fn store_transposed(&mut self) {
        let MatMulSpec { rows: outer, columns: width, .. } = self.product.spec;
        let (first, end) = (self.panels.start * PANEL, outer.min(self.panels.end * PANEL));
        let stride = self.grid.block_panels() * PANEL;
        let start = self.matrix * outer * width;
        // SAFETY: the grid's parts do not overlap; a swapped product has one block of rows.
        let to = unsafe { self.product.product.range(start + first * width..start + end * width) };
        for (index, row) in to.chunks_exact_mut(width).enumerate() {
            for (to, sums) in row.iter_mut().zip(self.sums.chunks_exact(stride)) {
                *to = P::narrow(sums[index]);
            }
        }
    }
}
