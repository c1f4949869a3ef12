//! Asking for memory before it is used.
//!
//! A cache can wait for a few dozen lines at a time: asked for in one burst, lines from memory hold up the loads of the
//! tile that is being multiplied. So a few are asked for in each iteration of its loop.

use std::slice::Iter;

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
    written: bool,
}

impl Lines {
    const NONE: Self = Self { at: std::ptr::null(), stride: 0, rows: 0, two: false, written: false };

    /// A branch and not a pointer to a function, whose call would spill the sums.
    #[inline(always)]
    fn fetch(&self, line: *const f32) {
        if self.written { prefetch_to_write(line) } else { prefetch(line) }
    }

    #[inline(always)]
    fn next_row(&mut self) {
        self.fetch(self.at);
        if self.two {
            self.fetch(self.at.wrapping_add(LINE));
        }
        self.at = self.at.wrapping_byte_add(self.stride);
        self.rows -= 1;
    }
}

/// The most matrices of which a tile touches a part.
const STREAMS: usize = 5;

/// Lines that a tile will touch, in the order in which they are asked for.
pub struct Touched {
    lines: [Lines; STREAMS],
    count: usize,
}

impl Touched {
    pub const NONE: Self = Self { lines: [Lines::NONE; STREAMS], count: 0 };

    /// Takes on a part of a matrix that will be read or written. The extents are the elements between rows, the rows,
    /// and the elements of each.
    #[inline(always)]
    pub fn add<S>(&mut self, at: *const S, (stride, rows, columns): (usize, usize, usize), written: bool) {
        let (stride, two) = (stride * size_of::<S>(), columns * size_of::<S>() > LINE * size_of::<f32>());
        if let Some(next) = self.lines.get_mut(self.count) {
            *next = Lines { at: at.cast(), stride, rows, two, written };
            self.count += 1;
        }
    }
}

/// What to ask for while a tile is multiplied. It stays in registers, so it only refers to what comes later.
pub struct Ahead<'a> {
    /// The tile's share of the next panel; null if there is none.
    panel: *const f32,
    current: Lines,
    later: Iter<'a, Lines>,
}

impl<'a> Ahead<'a> {
    #[inline(always)]
    pub fn new(panel: *const f32, touched: &'a Touched) -> Self {
        Self { panel, current: Lines::NONE, later: touched.lines[..touched.count].iter() }
    }

    /// Asks for the share of [`STEPS`] words of k.
    #[inline(always)]
    pub fn fetch(&mut self) {
        if !self.panel.is_null() {
            prefetch(self.panel);
            prefetch(self.panel.wrapping_add(LINE));
            self.panel = self.panel.wrapping_add(STEPS * PANEL / FETCHING_TILES);
        }
        if self.current.rows > 0 {
            self.current.next_row();
        } else if let Some(next) = self.later.next() {
            self.current = *next;
        }
    }
}
