use std::ops::Range;

use half::bf16;

use super::Rows;
use crate::kernels::pack::{Element, PANEL, words};
use crate::kernels::simd::{Vector, prefetch};

/// Lanes of the widest vector.
const BLOCK: usize = 16;

/// One side of a product: `extent` rows or columns, each with `inner` k.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a, E> {
    pub values: &'a [E],
    pub extent: usize,
    pub inner: usize,
    /// Stored [inner, extent] instead of [extent, inner].
    pub strided: bool,
}

/// Words as a strip reads them: the address, then the words from row to row and from k to k.
pub type Words = (*const f32, usize, usize);

impl<E: Element> Side<'_, E> {
    /// Words of scratch memory that [`Self::rows`] takes.
    pub fn rows_scratch(&self, rows: usize, run: usize) -> usize {
        match self.strided {
            true if E::PAIR == 1 => 0,
            true => words::<E>(run) * rows,
            false => Rows::<E>::scratch_words(rows, self.inner, run),
        }
    }

    /// This side's rows as the one that is read value by value.
    #[inline(always)]
    pub fn rows<V: Vector>(&self, rows: Range<usize>, run: &Range<usize>, copy: &mut [f32]) -> Words {
        if !self.strided {
            let (x, stride) = Rows { values: self.values, width: self.inner }.read(rows, run, copy);
            return (x, stride, 1);
        }
        if E::PAIR == 1 {
            let start = self.values.as_ptr().wrapping_add(run.start * self.extent + rows.start);
            return (start.cast(), 1, self.extent);
        }
        let width = rows.len();
        self.interleave::<V>(rows, run, copy, width);
        (copy.as_ptr(), 1, width)
    }

    /// This side's `columns` as a panel of `width` or wider: the address and the words from k to k.
    #[inline(always)]
    pub fn panel<V: Vector>(
        &self,
        columns: Range<usize>,
        run: &Range<usize>,
        copy: &mut [f32],
        width: usize,
    ) -> (*const f32, usize) {
        if self.strided && E::PAIR == 1 && columns.len() == PANEL {
            let start = self.values.as_ptr().wrapping_add(run.start * self.extent + columns.start);
            return (start.cast(), self.extent);
        }
        if self.strided {
            self.interleave::<V>(columns, run, copy, width);
        } else {
            self.transpose::<V>(columns, run, copy, width);
        }
        (copy.as_ptr(), width)
    }

    /// [run / PAIR, width] words of a side stored [inner, extent]. Columns beyond are left as they are.
    #[inline(always)]
    fn interleave<V: Vector>(&self, columns: Range<usize>, run: &Range<usize>, to: &mut [f32], width: usize) {
        let row = |k: usize| &self.values[k * self.extent..][columns.clone()];
        if E::PAIR == 1 {
            for (k, to) in run.clone().zip(to.chunks_exact_mut(width)) {
                to.iter_mut().zip(row(k)).for_each(|(to, value)| *to = value.widen());
            }
            return;
        }
        let in_vectors = columns.len() - columns.len() % (2 * V::LANES);
        for (k, to) in run.clone().step_by(2).zip(to.chunks_exact_mut(width)) {
            let low: *const bf16 = row(k).as_ptr().cast();
            let high: *const bf16 =
                if k + 1 < run.end { row(k + 1).as_ptr().cast() } else { std::ptr::null() };
            let to = to[..columns.len()].as_mut_ptr();
            let in_vectors = if high.is_null() { 0 } else { in_vectors };
            // SAFETY: both rows and the target have so many columns.
            unsafe {
                for column in (0..in_vectors).step_by(2 * V::LANES) {
                    prefetch(low.wrapping_add(column + PANEL).cast());
                    prefetch(high.wrapping_add(column + PANEL).cast());
                    V::interleave(low.add(column), high.add(column), to.add(column));
                }
                for column in in_vectors..columns.len() {
                    let high = if high.is_null() { 0 } else { u32::from((*high.add(column)).to_bits()) };
                    *to.add(column) = f32::from_bits(u32::from((*low.add(column)).to_bits()) | high << 16);
                }
            }
        }
    }

    /// [run / PAIR, width] words of a side stored [extent, inner], k rounded up to whole vectors. Columns beyond hold
    /// anything.
    #[inline(always)]
    fn transpose<V: Vector>(&self, columns: Range<usize>, run: &Range<usize>, to: &mut [f32], width: usize) {
        let step = V::LANES * E::PAIR;
        let whole_rows = (self.inner * size_of::<E>()).is_multiple_of(size_of::<f32>());
        for first in columns.clone().step_by(V::LANES) {
            let group = first..columns.end.min(first + V::LANES);
            let mut block = [0.0f32; BLOCK * BLOCK];
            for (k, to) in run.clone().step_by(step).zip(to.chunks_exact_mut(V::LANES * width)) {
                let length = step.min(run.end - k);
                let start = self.values[first * self.inner + k..].as_ptr().cast::<f32>();
                let to = to[first - columns.start..].as_mut_ptr();
                // SAFETY: the rows of the group have `length` elements from k on, and `to` is LANES rows of a panel;
                // only whole rows of words are read where they lie.
                unsafe {
                    if group.len() == V::LANES && length == step && whole_rows {
                        V::transpose(start, words::<E>(self.inner), to, width);
                        continue;
                    }
                    for (column, row) in block.chunks_exact_mut(V::LANES).take(group.len()).enumerate() {
                        let start = start.wrapping_byte_add(column * self.inner * size_of::<E>());
                        if length.is_multiple_of(E::PAIR) {
                            V::load_partial(start, length / E::PAIR).store(row.as_mut_ptr());
                        } else {
                            row.fill(0.0);
                            let row = row.as_mut_ptr().cast::<E>();
                            std::ptr::copy_nonoverlapping(start.cast::<E>(), row, length);
                        }
                    }
                    V::transpose(block.as_ptr(), V::LANES, to, width);
                }
            }
        }
    }
}
