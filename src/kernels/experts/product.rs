use bytemuck::Pod;

use super::{PARTS, runs};
use crate::error::Result;
use crate::kernels::matmul::{Grouped, MatMul, MatMulSpec};
use crate::kernels::simd::Isa;
use crate::kernels::split::expect_len;
use crate::kernels::{In, Kernel, Out};

/// (x [n, in], weight [experts, out, in], expert of each row `[n]`) -> [n, out], or weight [experts, in, out] where
/// `transpose_weight`. A row without an expert of that number is zero.
#[derive(Debug)]
pub struct ExpertLinear<E> {
    x: In<E>,
    weight: In<E>,
    experts: In<u32>,
    y: Out<E>,
    /// The product of all rows with one expert's matrix.
    whole: MatMulSpec,
}

impl<E: Pod> ExpertLinear<E> {
    /// `widths` are in and out.
    ///
    /// # Errors
    /// An internal error if the lengths do not fit.
    pub fn new(
        [x, weight]: [In<E>; 2],
        experts: In<u32>,
        y: Out<E>,
        [inner, columns]: [usize; 2],
        transpose_weight: bool,
    ) -> Result<Self> {
        let rows = experts.len();
        expect_len("the rows of experts", x.len(), rows * inner)?;
        expect_len("what experts make of rows", y.len(), rows * columns)?;
        let matrix = inner * columns;
        expect_len(
            "the experts' weights",
            weight.len(),
            weight.len().checked_div(matrix).unwrap_or(0) * matrix,
        )?;
        let whole = MatMulSpec {
            batch: 1,
            rows,
            inner,
            columns,
            transpose_left: false,
            transpose_right: !transpose_weight,
            isa: Isa::detect(),
        };
        Ok(Self { x, weight, experts, y, whole })
    }
}

impl<E: Pod + Send + Sync> Kernel for ExpertLinear<E>
where
    MatMul<E>: Grouped,
{
    fn parts(&self) -> usize {
        if self.y.is_empty() { 0 } else { PARTS }
    }

    fn scratch_bytes(&self) -> usize {
        MatMul::<E>::most_scratch_bytes(&self.whole)
    }

    fn run(&self, part: usize, scratch: &mut [u8]) {
        let MatMulSpec { inner, columns, .. } = self.whole;
        let matrix = inner * columns;
        let experts = self.weight.len().checked_div(matrix).unwrap_or(0);
        let mut first = part;
        for (expert, rows) in runs(self.experts.as_slice()) {
            let to = self.y.part(rows.start * columns..rows.end * columns);
            if expert >= experts {
                if part == 0 {
                    // SAFETY: no other part writes the rows of no expert.
                    unsafe { to.range(0..to.len()) }.fill(E::zeroed());
                }
                continue;
            }
            let x = self.x.part(rows.start * inner..rows.end * inner);
            let weight = self.weight.part(expert * matrix..(expert + 1) * matrix);
            let Ok(product) = MatMul::new(x, weight, to, MatMulSpec { rows: rows.len(), ..self.whole })
            else {
                continue;
            };
            let blocks = product.parts();
            (first..blocks).step_by(PARTS).for_each(|block| product.run(block, scratch));
            first = (first + PARTS - blocks % PARTS) % PARTS;
        }
    }
}
