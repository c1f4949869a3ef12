//! y = x W^T (+ scale u v^T) (+ residual) and, for the way back, y = x W (...): W packed once for both.

mod gated;
mod low_rank;
#[cfg(test)]
mod speed;
#[cfg(test)]
mod tests;

use std::ops::Range;

use super::matmul::{
    Block, Factors, Fetch, Grid, Output, Partial, Rows, Scratch, Strip, TILE_ROWS, Written, elements_mut,
    even_rows,
};
use super::pack::{Element, PANEL, TransposedPanel, packed_len, words};
use super::simd::Isa;
use super::split::{expect_len, hardware_threads};
use super::{In, Kernel, Out};
use crate::error::Result;

pub use gated::GatedGradient;
pub use low_rank::LowRankTerm;
#[cfg(test)]
pub(in crate::kernels) use speed::peak;

/// Rows of a part, which go through all its panels together: they stay in the second-level cache.
const BLOCK_ROWS: usize = 8 * TILE_ROWS;
/// Parts wanted for each thread: fewer read x and the panels less often.
const PARTS_PER_THREAD: usize = 8;
/// Rows per part where panels are transposed first, which must be cheap beside multiplying with them.
const TRANSPOSING_ROWS: usize = 2048;
/// Rows of such a part that go through all its panels together.
const MULTIPLIED_ROWS: usize = 4 * TILE_ROWS;
/// Words of the longest run of k in one pass over a row block: rows and panel stay in the second-level cache.
const BLOCK_WORDS: usize = 1536;
/// Bytes of panels that the row blocks of one column block read one after another: they stay in the shared cache.
const SHARED_BYTES: usize = 4 << 20;
/// Bytes of transposed panels that a part holds, beside its rows, in the second-level cache.
const TRANSPOSED_BYTES: usize = 400 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinearSpec {
    pub rows: usize,
    /// k, the contracted extent.
    pub inputs: usize,
    /// n
    pub outputs: usize,
    /// The packed weight is [inputs, outputs] instead of [outputs, inputs].
    pub transpose_weight: bool,
    pub isa: Isa,
}

/// What becomes of the product, [rows, outputs].
#[derive(Debug, Clone, Copy)]
pub enum Product<E> {
    /// It is written, with a residual added if there is one.
    Written { residual: Option<In<E>>, y: Out<E> },
    /// It is the gradient of a gated unit's result, and exists a block at a time.
    Gated(GatedGradient<E>),
}

#[derive(Debug)]
pub struct Linear<E> {
    x: In<E>,
    packed: In<E>,
    low_rank: Option<LowRankTerm<E>>,
    product: Product<E>,
    spec: LinearSpec,
    grid: Grid,
}

impl<E: Element + Written> Linear<E> {
    /// `x` [rows, inputs], `packed` as [`super::pack::Pack`] lays it out.
    ///
    /// # Errors
    /// If the memory does not have the lengths that the extents ask for.
    pub fn new(
        x: In<E>,
        packed: In<E>,
        low_rank: Option<LowRankTerm<E>>,
        product: Product<E>,
        spec: LinearSpec,
    ) -> Result<Self> {
        let LinearSpec { rows, inputs, outputs, transpose_weight, .. } = spec;
        let (n, k) = if transpose_weight { (inputs, outputs) } else { (outputs, inputs) };
        expect_len("the input of a linear layer", x.len(), rows * inputs)?;
        expect_len("its packed weight", packed.len(), packed_len::<E>(n, k))?;
        if let Some(term) = &low_rank {
            term.check(rows, outputs)?;
        }
        match &product {
            Product::Written { residual, y } => {
                expect_len("its output", y.len(), rows * outputs)?;
                expect_len("its residual", residual.map_or(y.len(), |r| r.len()), rows * outputs)?;
            }
            Product::Gated(gradient) => gradient.check(rows, outputs)?,
        }
        let panel_bytes = words::<E>(inputs) * PANEL * size_of::<f32>();
        let parts = PARTS_PER_THREAD * hardware_threads();
        let block = if transpose_weight {
            let panel_bytes = panel_bytes.min(BLOCK_WORDS * PANEL * size_of::<f32>());
            Block { rows: TRANSPOSING_ROWS, panel_bytes, bytes: TRANSPOSED_BYTES, parts }
        } else {
            Block { rows: BLOCK_ROWS, panel_bytes, bytes: SHARED_BYTES, parts }
        };
        Ok(Self { x, packed, low_rank, product, spec, grid: Grid::new(rows, outputs, block) })
    }

    /// Elements per run of k: whole panels of a packed weight that is transposed.
    fn run_length(&self) -> usize {
        let runs = words::<E>(self.spec.inputs).div_ceil(BLOCK_WORDS).max(1);
        self.spec.inputs.div_ceil(runs).next_multiple_of(PANEL).max(PANEL)
    }

    fn runs(&self) -> impl Iterator<Item = Range<usize>> + use<E> {
        let (inputs, length) = (self.spec.inputs, self.run_length());
        (0..inputs.max(1)).step_by(length).map(move |start| start..inputs.min(start + length))
    }

    /// Most rows that are multiplied together.
    fn block_rows(&self) -> usize {
        let rows = self.grid.block_rows();
        if self.spec.transpose_weight { rows.min(MULTIPLIED_ROWS) } else { rows }
    }

    /// Words of scratch memory.
    fn lengths(&self) -> Lengths {
        let panels = self.grid.block_panels();
        let run = self.run_length().min(self.spec.inputs);
        let transposed = if self.spec.transpose_weight { panels } else { 0 };
        let gated = matches!(self.product, Product::Gated(_));
        let kept = (E::PAIR > 1 || gated) && run < self.spec.inputs;
        Lengths {
            v: self.low_rank.map_or(0, |term| panels * term.panel_words()),
            u: self.low_rank.map_or(0, |term| term.copy_words(self.block_rows())),
            transposed: transposed * TransposedPanel::<E>::words(run.div_ceil(PANEL)),
            sums: if kept { self.grid.block_rows() * panels * PANEL } else { 0 },
            block: if gated { words::<E>(self.block_rows() * PANEL) } else { 0 },
            x: Rows::<E>::scratch_words(self.block_rows(), self.spec.inputs, run),
        }
    }

    /// Lays out v for all panels of a part.
    fn pack_low_rank(&self, panels: Range<usize>, packed: &mut [f32]) {
        let Some(term) = self.low_rank.filter(|term| term.rank > 0) else { return };
        for (panel, packed) in panels.zip(packed.chunks_exact_mut(term.panel_words())) {
            let first = panel * PANEL;
            let columns = first..first + self.grid.panel_columns(panel);
            term.pack(self.spec.outputs, columns, self.spec.isa, packed);
        }
    }

    fn transpose(&self, panels: Range<usize>, run: &Range<usize>, transposed: &mut [f32]) {
        let length = TransposedPanel::<E>::words(run.len().div_ceil(PANEL));
        if !self.spec.transpose_weight || length == 0 {
            return;
        }
        for (panel, to) in panels.zip(transposed.chunks_exact_mut(length)) {
            self.spec.isa.run(TransposedPanel {
                packed: self.packed.as_slice(),
                inputs: self.spec.outputs,
                first: panel * PANEL,
                panels: run.start / PANEL..run.end.div_ceil(PANEL),
                to,
            });
        }
    }
}

/// Words of scratch memory, in this order.
struct Lengths {
    v: usize,
    u: usize,
    transposed: usize,
    sums: usize,
    block: usize,
    x: usize,
}

impl<E: Element + Written> Kernel for Linear<E> {
    fn parts(&self) -> usize {
        self.grid.parts()
    }

    fn scratch_bytes(&self) -> usize {
        let Lengths { v, u, transposed, sums, block, x } = self.lengths();
        (v + u + transposed + sums + block + x) * size_of::<f32>()
    }

    fn run(&self, part: usize, scratch: &mut [u8]) {
        let (rows, panels) = self.grid.part(part);
        let lengths = self.lengths();
        let mut scratch = Scratch::new(scratch);
        let mut pass = Pass {
            linear: self,
            first_row: rows.start,
            panels: panels.clone(),
            v: scratch.take(lengths.v),
            u: scratch.take(lengths.u),
            transposed: scratch.take(lengths.transposed),
            sums: scratch.take(lengths.sums),
            block: scratch.take(lengths.block),
            x: scratch.take(lengths.x),
        };
        self.pack_low_rank(panels.clone(), pass.v);
        let blocks = rows.len().div_ceil(self.block_rows().max(1));
        for run in self.runs() {
            self.transpose(panels.clone(), &run, pass.transposed);
            for block in 0..blocks {
                let block = even_rows(rows.len(), blocks, block);
                pass.multiply(rows.start + block.start..rows.start + block.end, &run);
            }
        }
    }
}

/// What a part holds while it goes through runs of k and blocks of rows.
struct Pass<'a, E> {
    linear: &'a Linear<E>,
    first_row: usize,
    panels: Range<usize>,
    v: &'a mut [f32],
    u: &'a mut [f32],
    transposed: &'a mut [f32],
    sums: &'a mut [f32],
    /// One panel of a product that is not written.
    block: &'a mut [f32],
    x: &'a mut [f32],
}

impl<E: Element + Written> Pass<'_, E> {
    /// All panels of a block of rows.
    fn multiply(&mut self, rows: Range<usize>, run: &Range<usize>) {
        let linear = self.linear;
        let LinearSpec { inputs, outputs, isa, .. } = linear.spec;
        let last = run.end == inputs;
        let x = Rows { values: linear.x.as_slice(), width: inputs };
        let (x, x_stride) = x.read(rows.clone(), run, self.x);
        for (index, panel) in self.panels.clone().enumerate() {
            let at = rows.start * outputs + panel * PANEL;
            let (panel_words, next) = self.panel(index, run);
            let low_rank = match linear.low_rank {
                Some(term) if last => {
                    let v = self.v.as_ptr().wrapping_add(index * term.panel_words());
                    term.factors(rows.clone(), v, self.u)
                }
                _ => Factors::NONE,
            };
            let (output, y_stride, fetch) = self.output(at);
            let columns = linear.grid.panel_columns(panel);
            let depth = words::<E>(run.len());
            let strip = Strip {
                pairs: E::PAIR == 2,
                base: Factors { x, x_stride, panel: panel_words, depth, next, ..Factors::NONE },
                low_rank,
                partial: self.partial(rows.start, index, run),
                output,
                y_stride,
                rows: rows.len(),
                columns,
                fetch,
            };
            // SAFETY: `new` checked every length against the extents; the grid's parts do not overlap.
            unsafe { strip.compute(isa) };
            if let Product::Gated(gradient) = linear.product
                && last
            {
                let columns = panel * PANEL..panel * PANEL + columns;
                // SAFETY: as above.
                unsafe { gradient.write(rows.clone(), columns, outputs, (isa, elements_mut(self.block))) };
            }
        }
    }

    /// Where the product from element `at` on is written, the elements between its rows, and what to ask for.
    fn output(&mut self, at: usize) -> (Output, usize, Fetch) {
        let outputs = self.linear.spec.outputs;
        match self.linear.product {
            Product::Written { residual, y } => {
                let residual = residual.map_or(std::ptr::null(), |r| r.as_slice()[at..].as_ptr());
                (E::output(y.as_mut_ptr().wrapping_add(at), residual), outputs, Fetch::Output)
            }
            Product::Gated(gradient) => {
                let block = elements_mut::<E>(self.block).as_mut_ptr();
                (E::output(block, std::ptr::null()), PANEL, gradient.fetch(at, outputs))
            }
        }
    }

    /// A panel for this run of k, and the one that is read after it.
    fn panel(&self, index: usize, run: &Range<usize>) -> (*const f32, *const f32) {
        let linear = self.linear;
        let next = (index + 1) % self.panels.len();
        let (start, length) = if linear.spec.transpose_weight {
            (self.transposed.as_ptr(), TransposedPanel::<E>::words(run.len().div_ceil(PANEL)))
        } else {
            let length = words::<E>(linear.spec.inputs) * PANEL;
            let skipped = self.panels.start * length + words::<E>(run.start) * PANEL;
            (linear.packed.as_slice().as_ptr().cast::<f32>().wrapping_add(skipped), length)
        };
        (start.wrapping_add(index * length), start.wrapping_add(next * length))
    }

    /// Where sums wait for the next run: in y if there is one in f32.
    fn partial(&mut self, row: usize, panel: usize, run: &Range<usize>) -> Partial {
        let LinearSpec { inputs, outputs, .. } = self.linear.spec;
        let (sums, stride) = match self.linear.product {
            Product::Written { y, .. } if E::PAIR == 1 => {
                let at = row * outputs + (self.panels.start + panel) * PANEL;
                (y.as_mut_ptr().wrapping_add(at).cast(), outputs)
            }
            Product::Written { .. } | Product::Gated(_) => {
                let stride = self.linear.grid.block_panels() * PANEL;
                let at = (row - self.first_row) * stride + panel * PANEL;
                (self.sums.as_mut_ptr().wrapping_add(at), stride)
            }
        };
        Partial { sums, stride, add: run.start > 0, keep: run.end < inputs }
    }
}
