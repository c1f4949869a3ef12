use std::ops::Range;

use crate::kernels::pack::PANEL;

/// Bytes of panels that the row blocks of one column block read one after another: they stay in the shared cache.
const BLOCK_PANEL_BYTES: usize = 4 << 20;
/// Parts wanted where the extents allow it.
const MIN_PARTS: usize = 48;

/// How the output of a product is split: blocks of rows by blocks of panels.
///
/// Row blocks follow each other within a column block, so that threads taking parts in order share its panels.
#[derive(Debug, Clone, Copy)]
pub struct Grid {
    rows: usize,
    block_rows: usize,
    columns: usize,
    row_blocks: usize,
    panel_blocks: usize,
}

impl Grid {
    /// For an output [rows, columns] cut into blocks of so many rows, whose panels take `panel_bytes` each.
    pub fn new(rows: usize, block_rows: usize, columns: usize, panel_bytes: usize) -> Self {
        let panels = columns.div_ceil(PANEL);
        let row_blocks = rows.div_ceil(block_rows);
        let for_cache = (panels * panel_bytes).div_ceil(BLOCK_PANEL_BYTES);
        let for_threads = MIN_PARTS.div_ceil(row_blocks.max(1));
        let panel_blocks = for_cache.max(for_threads).min(panels);
        Self { rows, block_rows, columns, row_blocks, panel_blocks }
    }

    pub fn parts(&self) -> usize {
        self.row_blocks * self.panel_blocks
    }

    /// Most rows that a part has.
    pub fn block_rows(&self) -> usize {
        self.rows.min(self.block_rows)
    }

    /// The rows and the panels of one part.
    pub fn part(&self, part: usize) -> (Range<usize>, Range<usize>) {
        let panels = self.columns.div_ceil(PANEL);
        let first = part % self.row_blocks * self.block_rows;
        let rows = first..self.rows.min(first + self.block_rows);
        (rows, even(panels, self.panel_blocks, part / self.row_blocks))
    }

    /// How many columns a panel has.
    pub fn panel_columns(&self, panel: usize) -> usize {
        PANEL.min(self.columns - panel * PANEL)
    }
}

/// Piece `index` of `length` cut into `pieces` of nearly equal size.
fn even(length: usize, pieces: usize, index: usize) -> Range<usize> {
    length * index / pieces..length * (index + 1) / pieces
}
