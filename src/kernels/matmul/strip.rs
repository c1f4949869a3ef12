//! The inner kernel of every f32 matrix product: many rows times one panel.

use crate::kernels::pack::PANEL;
use crate::kernels::simd::{Isa, Vector, Vectorized, prefetch};

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

/// A product to add: `x [rows, depth]` times `panel [depth, PANEL]`.
#[derive(Debug, Clone, Copy)]
pub struct Factors {
    pub x: *const f32,
    /// Elements between rows of x.
    pub x_stride: usize,
    /// Elements between consecutive k of x: 1, or more where x is stored transposed.
    pub x_step: usize,
    pub panel: *const f32,
    /// Elements between rows of the panel.
    pub panel_stride: usize,
    pub depth: usize,
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
        panel_stride: 0,
        depth: 0,
        next: std::ptr::null(),
    };
}

/// `y [rows, columns] (+)= base + low_rank (+ residual)`, at most [`PANEL`] columns wide.
///
#[derive(Debug, Clone, Copy)]
pub struct Strip {
    pub base: Factors,
    pub low_rank: Factors,
    /// Shares y's stride; null where there is none.
    pub residual: *const f32,
    pub y: *mut f32,
    /// Elements between rows of y.
    pub y_stride: usize,
    pub rows: usize,
    pub columns: usize,
    /// Adds to what y holds.
    pub accumulate: bool,
}

/// A strip whose pointers someone has vouched for.
struct Vouched(Strip);

impl Vectorized for Vouched {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        // Rows and vectors per tile: as many accumulators as the registers hold beside one row of the panel.
        match V::LANES {
            16 if self.0.columns <= 16 => self.0.tiles::<V, 1>(14),
            16 => self.0.tiles::<V, 2>(14),
            8 if V::REGISTERS < 16 => self.0.tiles::<V, 1>(4),
            8 => self.0.tiles::<V, 2>(6),
            _ => self.0.tiles::<V, 4>(6),
        }
    }
}

impl Strip {
    /// # Safety
    /// Every pointer is valid for the extents, panels over all [`PANEL`] columns; no other thread touches this y.
    pub unsafe fn compute(self, isa: Isa) {
        debug_assert!(self.columns <= PANEL);
        isa.run(Vouched(self));
    }

    #[inline(always)]
    fn tiles<V: Vector, const C: usize>(&self, tile_rows: usize) {
        for column in (0..self.columns).step_by(C * V::LANES) {
            let mut row = 0;
            while row < self.rows {
                let rows =
                    TILES.into_iter().find(|&rows| rows <= tile_rows.min(self.rows - row)).unwrap_or(1);
                // SAFETY: the extents lie within those that the strip promises.
                unsafe { self.tile_of_rows::<V, C>(row, column, rows) };
                row += rows;
            }
        }
    }

    #[inline(always)]
    unsafe fn tile_of_rows<V: Vector, const C: usize>(&self, row: usize, column: usize, rows: usize) {
        macro_rules! by_rows {
            ($($n:literal)*) => {
                match rows {
                    // SAFETY: as promised by the caller.
                    $($n if $n <= 6 || V::LANES == 16 => unsafe { self.tile::<V, $n, C>(row, column) },)*
                    _ => debug_assert!(!TILES.contains(&rows)),
                }
            };
        }
        by_rows!(1 2 4 6 8 10 12 14);
    }

    /// R rows and C vectors, accumulated in registers.
    #[inline(always)]
    unsafe fn tile<V: Vector, const R: usize, const C: usize>(&self, row: usize, column: usize) {
        let mut sums = [[V::zero(); C]; R];
        // SAFETY: the strip promises the extents of its factors and of y, and this tile lies within them.
        unsafe {
            for factors in [&self.base, &self.low_rank] {
                multiply(&mut sums, factors, row, column);
            }
            each_row!(I in 0..R {
                let at = (row + I) * self.y_stride + column;
                for (j, &sum) in sums[I].iter().enumerate() {
                    self.finish(sum, at + j * V::LANES, column + j * V::LANES);
                }
            });
        }
    }

    /// Adds the residual and what y holds, and stores one vector.
    #[inline(always)]
    unsafe fn finish<V: Vector>(&self, mut sum: V, at: usize, column: usize) {
        let count = self.columns.saturating_sub(column).min(V::LANES);
        // SAFETY: `count` elements from `at` on lie within y and the residual.
        unsafe {
            let y = self.y.add(at);
            if count == V::LANES {
                if self.accumulate {
                    sum = sum.add(V::load(y));
                }
                if !self.residual.is_null() {
                    sum = sum.add(V::load(self.residual.add(at)));
                }
                sum.store(y);
            } else if count > 0 {
                if self.accumulate {
                    sum = sum.add(V::load_partial(y, count));
                }
                if !self.residual.is_null() {
                    sum = sum.add(V::load_partial(self.residual.add(at), count));
                }
                sum.store_partial(y, count);
            }
        }
    }
}

/// Tiles that share the fetching of the next panel.
const FETCHING_TILES: usize = 4;
/// Steps of k written out per loop iteration, so that addresses are computed once for all of them.
const STEPS: usize = 4;

#[inline(always)]
unsafe fn multiply<V: Vector, const R: usize, const C: usize>(
    sums: &mut [[V; C]; R],
    factors: &Factors,
    row: usize,
    column: usize,
) {
    let &Factors { x, x_stride, x_step, panel, panel_stride, depth, next } = factors;
    // Each tile fetches its share of the next panel, two lines at a time.
    let mut ahead = next.wrapping_add((row / TILE_ROWS % FETCHING_TILES * depth / FETCHING_TILES) * PANEL);
    let mut panel = panel.wrapping_add(column);
    // Every third row has a pointer; the two after it are reached by the stride in the address.
    let mut x: [*const f32; 5] = std::array::from_fn(|i| x.wrapping_add((row + 3 * i) * x_stride));
    let x_stride = x_stride * size_of::<f32>();
    // SAFETY: the strip promises `row + R` rows of x and `depth` rows of the panel.
    unsafe {
        let unrolled = if x_step == 1 { depth / STEPS } else { 0 };
        for _ in 0..unrolled {
            prefetch(ahead);
            prefetch(ahead.wrapping_add(PANEL / 2));
            ahead = ahead.wrapping_add(STEPS * PANEL / FETCHING_TILES);
            step::<V, R, C, 0>(sums, &x, x_stride, panel);
            step::<V, R, C, 1>(sums, &x, x_stride, panel.wrapping_add(panel_stride));
            step::<V, R, C, 2>(sums, &x, x_stride, panel.wrapping_add(2 * panel_stride));
            step::<V, R, C, 3>(sums, &x, x_stride, panel.wrapping_add(3 * panel_stride));
            x = x.map(|x| x.wrapping_add(STEPS));
            panel = panel.wrapping_add(STEPS * panel_stride);
        }
        for _ in 0..depth - unrolled * STEPS {
            step::<V, R, C, 0>(sums, &x, x_stride, panel);
            x = x.map(|x| x.wrapping_add(x_step));
            panel = panel.wrapping_add(panel_stride);
        }
    }
}

/// One k: a column of x, its stride in bytes, times a row of the panel.
#[inline(always)]
unsafe fn step<V: Vector, const R: usize, const C: usize, const K: usize>(
    sums: &mut [[V; C]; R],
    x: &[*const f32; 5],
    x_stride: usize,
    panel: *const f32,
) {
    // SAFETY: as promised to `multiply`.
    unsafe {
        let weights: [V; C] = std::array::from_fn(|j| V::load(panel.wrapping_add(j * V::LANES)));
        each_row!(I in 0..R {
            match I % 3 {
                0 => V::add_products::<C, 0, K>(&mut sums[I], &weights, x[I / 3], x_stride),
                1 => V::add_products::<C, 1, K>(&mut sums[I], &weights, x[I / 3], x_stride),
                _ => V::add_products::<C, 2, K>(&mut sums[I], &weights, x[I / 3], x_stride),
            }
        });
    }
}
