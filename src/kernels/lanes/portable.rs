//! Eight lanes in plain Rust, for machines without a set of their own (the compiler may still use NEON or SSE).

use super::Lanes;

#[derive(Debug, Clone, Copy)]
pub struct Portable;

#[inline(always)]
fn zip(a: [f32; 8], b: [f32; 8], f: impl Fn(f32, f32) -> f32) -> [f32; 8] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Lanes for Portable {
    const WIDTH: usize = 8;
    const TILE_ROWS: usize = 4;
    type Vector = [f32; 8];

    #[inline(always)]
    fn splat(value: f32) -> [f32; 8] {
        [value; 8]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> [f32; 8] {
        // SAFETY: promised by the caller; the read needs no more than f32's alignment.
        unsafe { from.cast::<[f32; 8]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, value: [f32; 8]) {
        // SAFETY: promised by the caller; the write needs no more than f32's alignment.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(value) }
    }

    #[inline(always)]
    fn add(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn fma(a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }

    #[inline(always)]
    fn max(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn scale_by_power(value: [f32; 8], shifted: [f32; 8]) -> [f32; 8] {
        zip(value, shifted, |v, s| f32::from_bits(v.to_bits().wrapping_add(s.to_bits() << 23)))
    }

    #[inline(always)]
    fn zero_where_below(value: [f32; 8], x: [f32; 8], bound: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| if x[i] < bound[i] { 0.0 } else { value[i] })
    }

    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
        for row in 0..8 {
            for column in 0..8 {
                // SAFETY: both blocks are 8 by 8, as the caller promised.
                unsafe { *to.add(column * to_row + row) = *from.add(row * from_row + column) };
            }
        }
    }
}
