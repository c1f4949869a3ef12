//! Where the sums of a strip go: rounded to the output's type, or kept in f32 where k is taken in several runs.

use half::bf16;

use crate::kernels::number::Float;
use crate::kernels::simd::Vector;

use super::ahead::Touched;
use super::strip::each_row;

/// y and, unless null, a residual to add; both have the same stride.
#[derive(Debug, Clone, Copy)]
pub enum Output {
    F32 { residual: *const f32, y: *mut f32 },
    Bf16 { residual: *const bf16, y: *mut bf16 },
}

/// f32 sums of the runs of k so far.
#[derive(Debug, Clone, Copy)]
pub struct Partial {
    pub sums: *mut f32,
    /// Elements between rows.
    pub stride: usize,
    /// Begin with what is there.
    pub add: bool,
    /// There are more runs: leave the sums there instead of in y.
    pub keep: bool,
}

/// Where the sums of one tile go: its first element is (`row`, `column`).
///
/// Every condition is met once for the whole tile and not once a vector: few instructions stand between the products of
/// one tile and those of the next, so that the processor overlaps them.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    pub partial: Partial,
    pub output: Output,
    /// Elements between rows of y.
    pub y_stride: usize,
    pub row: usize,
    pub column: usize,
}

impl Target {
    /// Adds the lines that the tile will touch.
    #[inline(always)]
    pub fn touch(&self, touched: &mut Touched, rows: usize, columns: usize) {
        match self.output {
            _ if self.partial.keep => touched.add(self.kept(), (self.partial.stride, rows, columns), true),
            Output::F32 { residual, y } => self.touch_rows(touched, residual, y, (rows, columns)),
            Output::Bf16 { residual, y } => self.touch_rows(touched, residual, y, (rows, columns)),
        }
    }

    #[inline(always)]
    fn touch_rows<S>(
        &self,
        touched: &mut Touched,
        residual: *const S,
        y: *const S,
        (rows, columns): (usize, usize),
    ) {
        let at = self.row * self.y_stride + self.column;
        touched.add(y.wrapping_add(at), (self.y_stride, rows, columns), true);
        if !residual.is_null() {
            touched.add(residual.wrapping_add(at), (self.y_stride, rows, columns), false);
        }
    }

    /// Stores whole vectors.
    ///
    /// # Safety
    /// There are so many rows and columns at the target, which no other thread touches.
    #[inline(always)]
    pub unsafe fn store_whole<V: Vector, const R: usize, const C: usize>(self, mut sums: [[V; C]; R]) {
        let kept = self.kept();
        let at = self.row * self.y_stride + self.column;
        // SAFETY: as promised by the caller.
        unsafe {
            if self.partial.add {
                add_rows(&mut sums, kept, self.partial.stride);
            }
            match self.output {
                _ if self.partial.keep => store_rows(&sums, kept, self.partial.stride),
                Output::F32 { residual, y } => {
                    finish_rows(
                        sums,
                        residual.wrapping_add(at),
                        residual.is_null(),
                        y.add(at),
                        self.y_stride,
                    );
                }
                Output::Bf16 { residual, y } => {
                    finish_rows(
                        sums,
                        residual.wrapping_add(at),
                        residual.is_null(),
                        y.add(at),
                        self.y_stride,
                    );
                }
            }
        }
    }

    /// Stores the first `columns` of a tile at the edge.
    ///
    /// # Safety
    /// There are so many rows and columns at the target, which no other thread touches.
    #[inline(always)]
    pub unsafe fn store_columns<V: Vector, const R: usize, const C: usize>(
        self,
        sums: [[V; C]; R],
        columns: usize,
    ) {
        // A copy to be indexed: the sums themselves stay in registers.
        let mut copy = sums;
        each_row!(I in 0..R {
            copy[I] = sums[I];
        });
        for (row, sums) in copy.iter().enumerate() {
            for (j, &sum) in sums.iter().enumerate() {
                let count = columns.saturating_sub(j * V::LANES).min(V::LANES);
                // SAFETY: as promised by the caller.
                unsafe { self.store_lanes(sum, row, j * V::LANES, count) };
            }
        }
    }

    #[inline(always)]
    unsafe fn store_lanes<V: Vector>(self, mut sum: V, row: usize, column: usize, count: usize) {
        let kept = self.kept().wrapping_add(row * self.partial.stride + column);
        let at = (self.row + row) * self.y_stride + self.column + column;
        // SAFETY: as promised by the caller of `store_columns`.
        unsafe {
            if self.partial.add {
                sum = sum.add(f32::load(kept, count));
            }
            match self.output {
                _ if self.partial.keep => f32::store(sum, kept, count),
                Output::F32 { residual, y } => add_and_store(sum, residual, y, at, count),
                Output::Bf16 { residual, y } => add_and_store(sum, residual, y, at, count),
            }
        }
    }

    fn kept(self) -> *mut f32 {
        self.partial.sums.wrapping_add(self.row * self.partial.stride + self.column)
    }
}

/// Adds the residual, if there is one, and stores.
#[inline(always)]
unsafe fn finish_rows<V: Vector, S: Stored, const R: usize, const C: usize>(
    mut sums: [[V; C]; R],
    residual: *const S,
    plain: bool,
    y: *mut S,
    stride: usize,
) {
    // SAFETY: as promised by the caller of `Target::store_whole`.
    unsafe {
        if !plain {
            add_rows(&mut sums, residual, stride);
        }
        store_rows(&sums, y, stride);
    }
}

#[inline(always)]
unsafe fn add_rows<V: Vector, S: Stored, const R: usize, const C: usize>(
    sums: &mut [[V; C]; R],
    from: *const S,
    stride: usize,
) {
    each_row!(I in 0..R {
        for (j, sum) in sums[I].iter_mut().enumerate() {
            // SAFETY: as promised by the caller of `Target::store_whole`.
            *sum = sum.add(unsafe { S::load(from.wrapping_add(I * stride + j * V::LANES), V::LANES) });
        }
    });
}

#[inline(always)]
unsafe fn store_rows<V: Vector, S: Stored, const R: usize, const C: usize>(
    sums: &[[V; C]; R],
    to: *mut S,
    stride: usize,
) {
    each_row!(I in 0..R {
        for (j, &sum) in sums[I].iter().enumerate() {
            // SAFETY: as promised by the caller of `Target::store_whole`.
            unsafe { S::store(sum, to.wrapping_add(I * stride + j * V::LANES), V::LANES) };
        }
    });
}

/// Adds the residual and stores the first `count` lanes at `at`.
#[inline(always)]
unsafe fn add_and_store<V: Vector, S: Stored>(
    mut sum: V,
    residual: *const S,
    y: *mut S,
    at: usize,
    count: usize,
) {
    // SAFETY: as promised by the caller of `Target::store_columns`.
    unsafe {
        if !residual.is_null() {
            sum = sum.add(S::load(residual.add(at), count));
        }
        S::store(sum, y.add(at), count);
    }
}

/// An element type that vectors of f32 are read from and rounded to.
trait Stored: Copy {
    /// # Safety
    /// There are `count` elements at `from`.
    unsafe fn load<V: Vector>(from: *const Self, count: usize) -> V;

    /// # Safety
    /// There is room for `count` elements at `to`.
    unsafe fn store<V: Vector>(value: V, to: *mut Self, count: usize);
}

impl Stored for f32 {
    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const Self, count: usize) -> V {
        // SAFETY: as promised by the caller.
        unsafe { if count == V::LANES { V::load(from) } else { V::load_partial(from, count) } }
    }

    #[inline(always)]
    unsafe fn store<V: Vector>(value: V, to: *mut Self, count: usize) {
        // SAFETY: as promised by the caller.
        unsafe { if count == V::LANES { value.store(to) } else { value.store_partial(to, count) } }
    }
}

/// Lanes of the widest vector.
const MOST_LANES: usize = 16;

impl Stored for bf16 {
    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const Self, count: usize) -> V {
        // SAFETY: as promised by the caller; the array is as long as any vector.
        unsafe {
            if count == V::LANES {
                return V::load_bf16(from);
            }
            let mut lanes = [bf16::ZERO; MOST_LANES];
            std::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), count);
            V::load_bf16(lanes.as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn store<V: Vector>(value: V, to: *mut Self, count: usize) {
        // SAFETY: as promised by the caller; the array is as long as any vector.
        unsafe {
            if count == V::LANES {
                return value.store_bf16(to);
            }
            let mut lanes = [bf16::ZERO; MOST_LANES];
            value.store_bf16(lanes.as_mut_ptr());
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), to, count);
        }
    }
}

/// An element type that strips write.
pub trait Written: Float {
    fn output(y: *mut Self, residual: *const Self) -> Output;
}

impl Written for f32 {
    fn output(y: *mut Self, residual: *const Self) -> Output {
        Output::F32 { residual, y }
    }
}

impl Written for bf16 {
    fn output(y: *mut Self, residual: *const Self) -> Output {
        Output::Bf16 { residual, y }
    }
}
