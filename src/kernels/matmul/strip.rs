//! The inner kernel of every f32 and bf16 matrix product: many rows times one panel.
//!
//! Both element types are read in words of 32 bits, an f32 or a pair of bf16 that are neighbours along k, so that one
//! loop serves both: only the instruction that adds a word's products differs.

use super::ahead::{Ahead, Touched};
use super::output::{Output, Partial, Target};
use crate::kernels::pack::PANEL;
use crate::kernels::simd::{Isa, Vector, Vectorized};

/// Rows of the largest tile.
pub const TILE_ROWS: usize = 14;
/// Rows that a tile may have: each is compiled for each instruction set.
const TILES: [usize; 8] = [TILE_ROWS, 12, 10, 8, 6, 4, 2, 1];

/// Writes the body out for each index: a loop this long would be unrolled too late for the sums to live in registers.
macro_rules! each_row {
    ($i:ident in 0..$count:ident $body:block) => {
        each_row!(@ $i $count $body 0 1 2 3 4 5 6 7 8 9 10 11 12 13)
    };
    (@ $i:ident $count:ident $body:block $($n:literal)*) => {
        $(if $n < $count {
            const $i: usize = $n;
            $body
        })*
    };
}
pub(super) use each_row;

/// A product to add: `x [rows, depth]` times `panel [depth, PANEL]`, in words.
#[derive(Debug, Clone, Copy)]
pub struct Factors {
    pub x: *const f32,
    /// Words between rows of x.
    pub x_stride: usize,
    /// Words between consecutive k of x: 1, or more where x is stored transposed.
    pub x_step: usize,
    pub panel: *const f32,
    /// Words between rows of the panel.
    pub panel_stride: usize,
    pub depth: usize,
    /// How many runs of `depth` there are: the panel goes on, x continues `x_segment` words further.
    pub segments: usize,
    pub x_segment: usize,
    /// The panel that is read next, to fetch while this one is multiplied; null if unknown.
    pub next: *const f32,
}

impl Factors {
    /// A product of nothing.
    pub const NONE: Self = Self {
        x: std::ptr::null(),
        x_stride: 0,
        x_step: 1,
        panel: std::ptr::null(),
        panel_stride: PANEL,
        depth: 0,
        segments: 1,
        x_segment: 0,
        next: std::ptr::null(),
    };
}

/// `y [rows, columns] = base + low_rank`, and what [`Output`] and [`Partial`] add.
#[derive(Debug, Clone, Copy)]
pub struct Strip {
    /// Words are pairs of bf16.
    pub pairs: bool,
    pub base: Factors,
    pub low_rank: Factors,
    pub partial: Partial,
    pub output: Output,
    /// Elements between rows of y.
    pub y_stride: usize,
    pub rows: usize,
    pub columns: usize,
    pub fetch: Fetch,
}

/// What is asked for before it is touched.
#[derive(Debug, Clone, Copy)]
pub enum Fetch {
    /// Everything is near.
    Nothing,
    /// y, the residual and sums that are kept.
    Output,
    /// Parts of other matrices, as large as y, that are read and written after the strip.
    After(After),
}

/// Where matrices begin that have as many rows and columns as a strip.
#[derive(Debug, Clone, Copy)]
pub struct After {
    /// Null beyond the last one.
    pub read: [*const u8; 2],
    pub written: [*const u8; 3],
    /// Bytes of an element, and elements between rows.
    pub element: usize,
    pub stride: usize,
}

impl After {
    /// What a tile at (`row`, `column`) touches.
    #[inline(always)]
    fn touch(&self, touched: &mut Touched, (row, column): (usize, usize), (rows, columns): (usize, usize)) {
        let offset = (row * self.stride + column) * self.element;
        let extents = (self.stride * self.element, rows, columns * self.element);
        for at in self.written.into_iter().filter(|at| !at.is_null()) {
            touched.add(at.wrapping_add(offset), extents, true);
        }
        for at in self.read.into_iter().filter(|at| !at.is_null()) {
            touched.add(at.wrapping_add(offset), extents, false);
        }
    }
}

/// A strip whose pointers someone has vouched for.
struct Vouched<const PAIRS: bool>(Strip);

impl<const PAIRS: bool> Vectorized for Vouched<PAIRS> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        // Rows and vectors per tile: as many accumulators as the registers hold beside one row of the panel.
        match (V::LANES, self.0.columns) {
            (16, ..=16) => self.0.tiles::<V, 1, PAIRS>(14),
            (16, ..=32) => self.0.tiles::<V, 2, PAIRS>(14),
            (16, _) => self.0.tiles::<V, 3, PAIRS>(8),
            (8, _) if V::REGISTERS < 16 => self.0.tiles::<V, 1, PAIRS>(4),
            (8, _) => self.0.tiles::<V, 2, PAIRS>(6),
            _ => self.0.tiles::<V, 4, PAIRS>(6),
        }
    }
}

impl Strip {
    /// # Safety
    /// Every pointer is valid for the extents, panels over whole vectors of columns; no other thread touches this y.
    pub unsafe fn compute(self, isa: Isa) {
        if self.pairs {
            isa.for_pairs().run(Vouched::<true>(self));
        } else {
            isa.run(Vouched::<false>(self));
        }
    }

    #[inline(always)]
    fn tiles<V: Vector, const C: usize, const PAIRS: bool>(&self, tile_rows: usize) {
        for column in (0..self.columns).step_by(C * V::LANES) {
            let mut row = 0;
            while row < self.rows {
                let rows = next_tile(self.rows - row, tile_rows);
                // SAFETY: the extents lie within those that the strip promises.
                unsafe { self.tile_of_rows::<V, C, PAIRS>(row, column, rows) };
                row += rows;
            }
        }
    }

    #[inline(always)]
    unsafe fn tile_of_rows<V: Vector, const C: usize, const PAIRS: bool>(
        &self,
        row: usize,
        column: usize,
        rows: usize,
    ) {
        macro_rules! by_rows {
            ($($n:literal)*) => {
                match rows {
                    // SAFETY: as promised by the caller.
                    $($n if $n <= 6 || V::LANES == 16 && $n * C <= 28 => unsafe {
                        self.tile::<V, $n, C, PAIRS>(row, column)
                    },)*
                    _ => debug_assert!(!TILES.contains(&rows)),
                }
            };
        }
        by_rows!(1 2 4 6 8 10 12 14);
    }

    /// R rows and C vectors, accumulated in registers.
    #[inline(always)]
    unsafe fn tile<V: Vector, const R: usize, const C: usize, const PAIRS: bool>(
        &self,
        row: usize,
        column: usize,
    ) {
        let mut sums = [[V::zero(); C]; R];
        let target =
            Target { partial: self.partial, output: self.output, y_stride: self.y_stride, row, column };
        let mut touched = Touched::NONE;
        match &self.fetch {
            Fetch::Nothing => {}
            Fetch::Output => target.touch(&mut touched, R, C * V::LANES),
            Fetch::After(after) => after.touch(&mut touched, (row, column), (R, C * V::LANES)),
        }
        let mut ahead = Ahead::new(self.next_panel::<R>(row), &touched);
        // SAFETY: the strip promises the extents of its factors and of y, and this tile lies within them.
        unsafe {
            for factors in [&self.base, &self.low_rank] {
                multiply::<V, R, C, PAIRS>(&mut sums, factors, (row, column), &mut ahead);
            }
            if self.columns - column >= C * V::LANES {
                target.store_whole(sums);
            } else {
                target.store_columns(sums, self.columns - column);
            }
        }
    }

    /// The share of the next panel that the tile at `row` asks for.
    #[inline(always)]
    fn next_panel<const R: usize>(&self, row: usize) -> *const f32 {
        let Factors { next, depth, .. } = self.base;
        if next.is_null() {
            return next;
        }
        next.wrapping_add((row / R % FETCHING_TILES * depth / FETCHING_TILES) * PANEL)
    }
}

/// Rows of the next tile: of nearly equal height, so that no tile is left with too few sums to hide latencies.
#[inline(always)]
pub fn next_tile(left: usize, most: usize) -> usize {
    let even = left.div_ceil(left.div_ceil(most));
    TILES
        .into_iter()
        .rev()
        .find(|&rows| rows >= even && rows <= left.min(most))
        .unwrap_or_else(|| TILES.into_iter().find(|&rows| rows <= left.min(most)).unwrap_or(1))
}

/// Tiles that share the fetching of the next panel.
pub const FETCHING_TILES: usize = 4;
/// Steps of k written out per loop iteration, so that addresses are computed once for all of them.
pub const STEPS: usize = 4;

#[inline(always)]
unsafe fn multiply<V: Vector, const R: usize, const C: usize, const PAIRS: bool>(
    sums: &mut [[V; C]; R],
    factors: &Factors,
    (row, column): (usize, usize),
    ahead: &mut Ahead<'_>,
) {
    let &Factors { x, x_stride, x_step, panel, panel_stride, depth, segments, x_segment, .. } = factors;
    let mut panel = panel.wrapping_add(column);
    // Every third row has a pointer; the two after it are reached by the stride in the address.
    let mut x: [*const f32; 5] = std::array::from_fn(|i| x.wrapping_add((row + 3 * i) * x_stride));
    let x_stride = x_stride * size_of::<f32>();
    let unrolled = if x_step == 1 { depth / STEPS } else { 0 };
    // SAFETY: the strip promises `row + R` rows of x and `depth` rows of the panel for every segment.
    unsafe {
        for _ in 0..segments {
            for _ in 0..unrolled {
                ahead.fetch();
                step::<V, R, C, PAIRS, 0>(sums, &x, x_stride, panel);
                step::<V, R, C, PAIRS, 1>(sums, &x, x_stride, panel.wrapping_add(panel_stride));
                step::<V, R, C, PAIRS, 2>(sums, &x, x_stride, panel.wrapping_add(2 * panel_stride));
                step::<V, R, C, PAIRS, 3>(sums, &x, x_stride, panel.wrapping_add(3 * panel_stride));
                x = x.map(|x| x.wrapping_add(STEPS));
                panel = panel.wrapping_add(STEPS * panel_stride);
            }
            for k in 0..depth - unrolled * STEPS {
                if k.is_multiple_of(STEPS) {
                    ahead.fetch();
                }
                step::<V, R, C, PAIRS, 0>(sums, &x, x_stride, panel);
                x = x.map(|x| x.wrapping_add(x_step));
                panel = panel.wrapping_add(panel_stride);
            }
            x = x.map(|x| x.wrapping_add(x_segment).wrapping_sub(depth * x_step));
        }
    }
}

/// One word of k: a column of x, its stride in bytes, times a row of the panel.
#[inline(always)]
unsafe fn step<V: Vector, const R: usize, const C: usize, const PAIRS: bool, const K: usize>(
    sums: &mut [[V; C]; R],
    x: &[*const f32; 5],
    x_stride: usize,
    panel: *const f32,
) {
    macro_rules! add {
        ($sums:expr, $weights:expr, $index:literal, $x:expr) => {
            if PAIRS {
                V::add_pairs::<C, $index, K>($sums, $weights, $x, x_stride)
            } else {
                V::add_products::<C, $index, K>($sums, $weights, $x, x_stride)
            }
        };
    }
    // SAFETY: as promised to `multiply`; `Strip::compute` chose the instruction set.
    unsafe {
        let weights: [V; C] = std::array::from_fn(|j| V::load(panel.wrapping_add(j * V::LANES)));
        each_row!(I in 0..R {
            match I % 3 {
                0 => add!(&mut sums[I], &weights, 0, x[I / 3]),
                1 => add!(&mut sums[I], &weights, 1, x[I / 3]),
                _ => add!(&mut sums[I], &weights, 2, x[I / 3]),
            }
        });
    }
}
