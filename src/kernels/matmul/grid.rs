use std::ops::Range;

use super::TILE_ROWS;
use crate::kernels::pack::PANEL;
use crate::kernels::split::hardware_threads;

/// Most rows and bytes of panels that one part of a product should take.
#[derive(Debug, Clone, Copy)]
pub struct Block {
    pub rows: usize,
    /// Bytes of a panel, and of the panels of one part.
    pub panel_bytes: usize,
    pub bytes: usize,
    /// Parts wanted where the extents allow it.
    pub parts: usize,
}

/// Parts that keep many threads evenly busy.
pub const MANY_PARTS: usize = 48;

/// How the output of a product is split: blocks of rows by blocks of panels.
///
/// Where there are more row blocks than threads, they are a multiple of the threads, which then end together. No sum
/// depends on how an output is split.
///
/// Row blocks follow each other within a column block, so that threads taking parts in order share its panels.
#[derive(Debug, Clone, Copy)]
pub struct Grid {
    rows: usize,
    columns: usize,
    row_blocks: usize,
    panel_blocks: usize,
}

impl Grid {
    /// For an output [rows, columns].
    pub fn new(rows: usize, columns: usize, block: Block) -> Self {
        let panels = columns.div_ceil(PANEL);
        let row_blocks = rows.div_ceil(block.rows);
        let threads = hardware_threads();
        let row_blocks = if row_blocks > threads { row_blocks.next_multiple_of(threads) } else { row_blocks };
        let for_cache = (panels * block.panel_bytes).div_ceil(block.bytes);
        let for_threads = block.parts.div_ceil(row_blocks.max(1));
        let block_panels = (panels / for_cache.max(for_threads).max(1)).max(1);
        let panel_blocks = panels.div_ceil(block_panels);
        Self { rows, columns, row_blocks, panel_blocks }
    }

    pub fn parts(&self) -> usize {
        self.row_blocks * self.panel_blocks
    }

    /// Most rows that a part has.
    pub fn block_rows(&self) -> usize {
        let unit = row_unit(self.rows, self.row_blocks);
        self.rows.min(unit * self.rows.div_ceil(unit).div_ceil(self.row_blocks.max(1)))
    }

    /// Most panels that a part has.
    pub fn block_panels(&self) -> usize {
        self.columns.div_ceil(PANEL).div_ceil(self.panel_blocks.max(1))
    }

    /// The rows and the panels of one part.
    pub fn part(&self, part: usize) -> (Range<usize>, Range<usize>) {
        let panels = self.columns.div_ceil(PANEL);
        let rows = even_rows(self.rows, self.row_blocks, part % self.row_blocks);
        (rows, even(panels, self.panel_blocks, part / self.row_blocks))
    }

    /// How many columns a panel has.
    pub fn panel_columns(&self, panel: usize) -> usize {
        PANEL.min(self.columns - panel * PANEL)
    }
}

/// Piece `index` of so many rows cut into `pieces`: whole tiles of the largest height where there are enough of them,
/// else an even number of rows, for all but the last.
pub fn even_rows(rows: usize, pieces: usize, index: usize) -> Range<usize> {
    let unit = row_unit(rows, pieces);
    let units = even(rows.div_ceil(unit), pieces, index);
    unit * units.start..rows.min(unit * units.end)
}

fn row_unit(rows: usize, pieces: usize) -> usize {
    if rows >= pieces * TILE_ROWS { TILE_ROWS } else { 2 }
}

/// Piece `index` of `length` cut into `pieces` of nearly equal size.
pub fn even(length: usize, pieces: usize, index: usize) -> Range<usize> {
    length * index / pieces..length * (index + 1) / pieces
}
