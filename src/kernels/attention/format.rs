//! How the factors of attention's products are held in scratch memory.

use half::bf16;

use crate::kernels::number::Element;
use crate::kernels::simd::Vector;

/// Factors are rows of 32-bit words, each of which holds the numbers that are neighbours along the axis that a product
/// sums over.
pub trait Format {
    /// Whether a word is a pair of bf16 rather than an f32.
    const PAIRS: bool;
    /// Numbers in a word.
    const NUMBERS: usize = if Self::PAIRS { 2 } else { 1 };

    /// Words in a row of `numbers` neighbours, rounded up to whole vectors.
    fn words(numbers: usize) -> usize {
        super::padded(numbers.div_ceil(Self::NUMBERS))
    }

    /// A row as words of neighbours within it, zeros behind.
    fn along<E: Element>(row: &[E], to: &mut [f32]);

    /// Rows `[NUMBERS]` as words of neighbours across them, zeros behind; a missing row is zero.
    fn across<E: Element>(rows: [&[E]; 2], to: &mut [f32]);

    /// Stores the results of two rows that are neighbours, as factors of a product along them; `from` is the first row's
    /// place in a matrix of f32 with `columns`, `to` the matrix of factors at the same column.
    ///
    /// # Safety
    /// Row `row` and the next lie within the matrix, and `PAIRS` only where [`Vector::has_pair_products`].
    unsafe fn store_across<V: Vector>(values: [V; 2], to: *mut f32, row: usize, columns: usize);

    /// Stores results that are neighbours, as factors of a product along them, at a number of a row of words.
    ///
    /// # Safety
    /// `to` is valid for so many numbers, and `PAIRS` only where [`Vector::has_pair_products`].
    unsafe fn store_along<V: Vector>(values: V, to: *mut f32, number: usize);
}

/// f32.
pub struct Single;

/// Pairs of bf16.
pub struct Pairs;

/// Whether a kernel on activations of type `E` can use [`Pairs`].
#[inline(always)]
pub fn in_pairs<E: Element, V: Vector>() -> bool {
    size_of::<E>() == size_of::<bf16>() && V::has_pair_products()
}

impl Format for Single {
    const PAIRS: bool = false;

    #[inline(always)]
    fn along<E: Element>(row: &[E], to: &mut [f32]) {
        let (values, padding) = to.split_at_mut(row.len());
        for (to, from) in values.iter_mut().zip(row) {
            *to = from.widen();
        }
        padding.fill(0.0);
    }

    #[inline(always)]
    fn across<E: Element>(rows: [&[E]; 2], to: &mut [f32]) {
        Self::along(rows[0], to);
    }

    #[inline(always)]
    unsafe fn store_across<V: Vector>(values: [V; 2], to: *mut f32, row: usize, columns: usize) {
        // SAFETY: promised by the caller.
        unsafe {
            values[0].store(to.add(row * columns));
            values[1].store(to.add((row + 1) * columns));
        }
    }

    #[inline(always)]
    unsafe fn store_along<V: Vector>(values: V, to: *mut f32, number: usize) {
        // SAFETY: promised by the caller.
        unsafe { values.store(to.add(number)) }
    }
}

impl Format for Pairs {
    const PAIRS: bool = true;

    #[inline(always)]
    fn along<E: Element>(row: &[E], to: &mut [f32]) {
        let to: &mut [u16] = bytemuck::cast_slice_mut(to);
        let (values, padding) = to.split_at_mut(row.len());
        values.copy_from_slice(bytemuck::cast_slice(row));
        padding.fill(0);
    }

    #[inline(always)]
    fn across<E: Element>(rows: [&[E]; 2], to: &mut [f32]) {
        let to: &mut [u32] = bytemuck::cast_slice_mut(to);
        let [first, second] = rows.map(|row| bytemuck::cast_slice::<E, u16>(row));
        let (words, padding) = to.split_at_mut(first.len());
        if second.is_empty() {
            for (word, low) in words.iter_mut().zip(first) {
                *word = u32::from(*low);
            }
        }
        for (word, (low, high)) in words.iter_mut().zip(first.iter().zip(second)) {
            *word = u32::from(*low) | u32::from(*high) << 16;
        }
        padding.fill(0);
    }

    #[inline(always)]
    unsafe fn store_across<V: Vector>(values: [V; 2], to: *mut f32, row: usize, columns: usize) {
        // SAFETY: promised by the caller; two rows of numbers are one of words.
        unsafe { values[0].pack_pairs(values[1]).store(to.add(row / 2 * columns)) }
    }

    #[inline(always)]
    unsafe fn store_along<V: Vector>(values: V, to: *mut f32, number: usize) {
        // SAFETY: promised by the caller.
        unsafe { values.store_flushed_bf16(to.cast::<bf16>().add(number)) }
    }
}
