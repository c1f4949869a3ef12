use std::ops::Range;

use crate::kernels::pack::{Element, words};

/// Rows whose addresses differ by a multiple of this many bytes fall into the same cache set.
const ALIASING_BYTES: usize = 4096;
/// Words that keep copied rows apart from each other's cache sets.
const ROW_PADDING: usize = 16;

/// Rows of a matrix as strips read them: where they lie, or copied where rows share cache sets or do not consist of
/// whole words.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a, E> {
    pub values: &'a [E],
    /// Elements per row.
    pub width: usize,
}

impl<E: Element> Rows<'_, E> {
    pub fn are_copied(width: usize) -> bool {
        let aliasing = width > 0 && (width * size_of::<E>()).is_multiple_of(ALIASING_BYTES);
        aliasing || !width.is_multiple_of(E::PAIR)
    }

    /// Words of scratch memory for so many rows of at most `run` elements of k.
    pub fn scratch_words(rows: usize, width: usize, run: usize) -> usize {
        if Self::are_copied(width) { rows * copied_stride::<E>(run) } else { 0 }
    }

    /// The address of the rows and their stride in words. `inputs` begins with a whole word.
    pub fn read(&self, rows: Range<usize>, inputs: &Range<usize>, copy: &mut [f32]) -> (*const f32, usize) {
        let width = self.width;
        if !Self::are_copied(width) {
            let start = self.values.as_ptr().wrapping_add(rows.start * width + inputs.start);
            return (start.cast(), words::<E>(width));
        }
        let stride = copied_stride::<E>(inputs.len());
        for (row, to) in rows.zip(copy.chunks_exact_mut(stride)) {
            let to = elements_mut::<E>(to);
            to[..inputs.len()].copy_from_slice(&self.values[row * width..][inputs.clone()]);
            if inputs.len() < to.len() {
                to[inputs.len()] = E::narrow(0.0);
            }
        }
        (copy.as_ptr(), stride)
    }
}

fn copied_stride<E: Element>(run: usize) -> usize {
    words::<E>(run) + ROW_PADDING
}

/// The elements in words of scratch memory.
pub fn elements_mut<E: Element>(words: &mut [f32]) -> &mut [E] {
    bytemuck::cast_slice_mut(words)
}
