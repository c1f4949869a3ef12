//! Where the sums of a strip go: rounded to the output's type, or kept in f32 where k is taken in several runs.

use half::bf16;

use crate::kernels::number::Float;
use crate::kernels::simd::Vector;

/// y and, unless null, a residual to add; both have the same stride.
#[derive(Debug, Clone, Copy)]
pub enum Output {
    F32 { residual: *const f32, y: *mut f32 },
    Bf16 { residual: *const bf16, y: *mut bf16 },
}

impl Output {
    /// Adds the residual and stores the first `count` lanes at `at`.
    ///
    /// # Safety
    /// Residual and y have `count` elements there; no other thread touches them.
    #[inline(always)]
    pub unsafe fn store<V: Vector>(self, sum: V, at: usize, count: usize) {
        // SAFETY: as promised by the caller.
        unsafe {
            match self {
                Self::F32 { residual, y } => add_and_store(sum, residual, y, at, count),
                Self::Bf16 { residual, y } => add_and_store(sum, residual, y, at, count),
            }
        }
    }
}

#[inline(always)]
unsafe fn add_and_store<V: Vector, S: Stored>(
    mut sum: V,
    residual: *const S,
    y: *mut S,
    at: usize,
    count: usize,
) {
    // SAFETY: as promised by the caller of `Output::store`.
    unsafe {
        if !residual.is_null() {
            sum = sum.add(S::load(residual.add(at), count));
        }
        S::store(sum, y.add(at), count);
    }
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

impl Partial {
    /// The sum so far, unless it is kept.
    ///
    /// # Safety
    /// There are `count` sums at this row and column, which no other thread touches.
    #[inline(always)]
    pub unsafe fn pass<V: Vector>(self, mut sum: V, row: usize, column: usize, count: usize) -> Option<V> {
        let at = self.sums.wrapping_add(row * self.stride + column);
        // SAFETY: as promised by the caller.
        unsafe {
            if self.add {
                sum = sum.add(f32::load(at, count));
            }
            if self.keep {
                f32::store(sum, at, count);
                return None;
            }
        }
        Some(sum)
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
