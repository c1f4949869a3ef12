use crate::kernels::simd::{Vector, Vectorized};

/// Raises `largest` to the largest logit among `columns` of each row.
pub struct LargestOfRows<'a> {
    pub logits: &'a [f32],
    pub stride: usize,
    pub columns: usize,
    /// One for each row.
    pub largest: &'a mut [f32],
}

impl Vectorized for LargestOfRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        for (row, largest) in self.largest.iter_mut().enumerate() {
            let logits = &self.logits[row * self.stride..][..self.columns];
            let mut lanes = V::splat(*largest);
            let mut chunks = logits.chunks_exact(V::LANES);
            for chunk in &mut chunks {
                // SAFETY: the chunk is one vector long.
                lanes = lanes.max(unsafe { V::load(chunk.as_ptr()) });
            }
            *largest = chunks.remainder().iter().copied().fold(lanes.largest(), f32::max);
        }
    }
}

/// Replaces values by e^(value - shift) and returns their sum.
pub struct SoftmaxRow<'a> {
    pub values: &'a mut [f32],
    pub shift: f32,
}

impl Vectorized for SoftmaxRow<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<V: Vector>(self) -> f32 {
        let shift = V::splat(self.shift);
        // Four sums: fewer additions one after another, so less rounding.
        let mut sums = [V::zero(); 4];
        let mut groups = self.values.chunks_exact_mut(4 * V::LANES);
        for group in &mut groups {
            for (chunk, sum) in group.chunks_exact_mut(V::LANES).zip(&mut sums) {
                // SAFETY: the chunk is one vector long.
                unsafe {
                    let value = V::load(chunk.as_ptr()).sub(shift).exp();
                    value.store(chunk.as_mut_ptr());
                    *sum = sum.add(value);
                }
            }
        }
        let mut beyond = 0.0;
        for value in groups.into_remainder() {
            *value = (*value - self.shift).exp();
            beyond += *value;
        }
        let [a, b, c, d] = sums;
        a.add(b).add(c.add(d)).sum() + beyond
    }
}
