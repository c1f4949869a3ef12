//! Asking for memory before it is used.
//!
//! A cache can wait for a few dozen lines at a time: asked for in one burst, lines from memory hold up the loads of the
//! tile that is being multiplied. So a few are asked for in each iteration of its loop.

use super::strip::{FETCHING_TILES, STEPS};
use crate::kernels::pack::PANEL;
use crate::kernels::simd::{prefetch, prefetch_to_write};

/// Words in a cache line.
const LINE: usize = 16;

/// Rows of one or two lines each.
#[derive(Debug, Clone, Copy)]
struct Lines {
    at: *const f32,
    /// Bytes between rows.
    stride: usize,
    rows: usize,
    two: bool,
}

impl Lines {
    const NONE: Self = Self { at: std::ptr::null(), stride: 0, rows: 0, two: false };

    #[inline(always)]
    fn new<S>(at: *const S, (stride, rows, columns): (usize, usize, usize)) -> Self {
        let (stride, two) = (stride * size_of::<S>(), columns * size_of::<S>() > LINE * size_of::<f32>());
        Self { at: at.cast(), stride, rows, two }
    }

    #[inline(always)]
    fn next_row(&mut self, fetch: impl Fn(*const f32)) {
        fetch(self.at);
        if self.two {
            fetch(self.at.wrapping_add(LINE));
        }
        self.at = self.at.wrapping_byte_add(self.stride);
        self.rows -= 1;
    }
}

/// What to ask for while a tile is multiplied.
#[derive(Debug, Clone, Copy)]
pub struct Ahead {
    /// The tile's share of the next panel; null if there is none.
    pub panel: *const f32,
    written: Lines,
    read: Lines,
}

impl Ahead {
    pub const NONE: Self = Self { panel: std::ptr::null(), written: Lines::NONE, read: Lines::NONE };

    /// Takes on what begins at `at` of a matrix to be written and of one, unless null, to be read. The extents are the
    /// elements between rows, the rows, and the elements of each.
    #[inline(always)]
    pub fn update<S>(
        &mut self,
        written: *const S,
        read: *const S,
        at: usize,
        extents: (usize, usize, usize),
    ) {
        self.written = Lines::new(written.wrapping_add(at), extents);
        if !read.is_null() {
            self.read = Lines::new(read.wrapping_add(at), extents);
        }
    }

    /// Asks for the share of [`STEPS`] words of k.
    #[inline(always)]
    pub fn fetch(&mut self) {
        if !self.panel.is_null() {
            prefetch(self.panel);
            prefetch(self.panel.wrapping_add(LINE));
            self.panel = self.panel.wrapping_add(STEPS * PANEL / FETCHING_TILES);
        }
        if self.written.rows > 0 {
            self.written.next_row(prefetch_to_write);
        } else if self.read.rows > 0 {
            self.read.next_row(prefetch);
        }
    }
}
