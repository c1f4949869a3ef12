use bytemuck::Pod;

use super::PARTS;
use crate::error::Result;
use crate::kernels::matmul::{Grouped, MatMul, MatMulSpec};
use crate::kernels::simd::Isa;
use crate::kernels::split::expect_len;
use crate::kernels::{In, Kernel, Out};

/// (dy [n, out], x [n, in], expert of each row `[n]`, ascending) -> [experts, out, in].
#[derive(Debug)]
pub struct ExpertWeightGrad<E> {
    dy: In<E>,
    x: In<E>,
    experts: In<u32>,
    dweight: Out<E>,
    /// The product over all rows.
    whole: MatMulSpec,
}

impl<E: Pod> ExpertWeightGrad<E> {
    /// `widths` are out and in.
    ///
    /// # Errors
    /// An internal error if the lengths do not fit.
    pub fn new(
        [dy, x]: [In<E>; 2],
        experts: In<u32>,
        dweight: Out<E>,
        [rows, columns]: [usize; 2],
    ) -> Result<Self> {
        let (inner, matrix) = (experts.len(), rows * columns);
        expect_len("the experts' gradients", dy.len(), inner * rows)?;
        expect_len("the rows of experts", x.len(), inner * columns)?;
        let whole_matrices = dweight.len().checked_div(matrix).unwrap_or(0) * matrix;
        expect_len("the gradient of the experts' weights", dweight.len(), whole_matrices)?;
        let whole = MatMulSpec {
            batch: 1,
            rows,
            inner,
            columns,
            transpose_left: true,
            transpose_right: false,
            isa: Isa::detect(),
        };
        Ok(Self { dy, x, experts, dweight, whole })
    }
}

impl<E: Pod + Send + Sync> Kernel for ExpertWeightGrad<E>
where
    MatMul<E>: Grouped,
{
    fn parts(&self) -> usize {
        if self.dweight.is_empty() { 0 } else { PARTS }
    }

    fn scratch_bytes(&self) -> usize {
        MatMul::<E>::most_scratch_bytes(&self.whole)
    }

    fn run(&self, part: usize, scratch: &mut [u8]) {
        let MatMulSpec { rows: out, columns: inner, .. } = self.whole;
        let (matrix, ids) = (out * inner, self.experts.as_slice());
        let mut first = part;
        let mut start = 0;
        for expert in 0..self.dweight.len().checked_div(matrix).unwrap_or(0) {
            let rows = start..start + ids[start..].iter().take_while(|&&id| id as usize == expert).count();
            start = rows.end;
            let to = self.dweight.part(expert * matrix..(expert + 1) * matrix);
            if rows.is_empty() {
                if expert % PARTS == part {
                    // SAFETY: no other part writes the gradient of this expert.
                    unsafe { to.range(0..matrix) }.fill(E::zeroed());
                }
                continue;
            }
            let dy = self.dy.part(rows.start * out..rows.end * out);
            let x = self.x.part(rows.start * inner..rows.end * inner);
            let Ok(product) = MatMul::new(dy, x, to, MatMulSpec { inner: rows.len(), ..self.whole }) else {
                continue;
            };
            let blocks = product.parts();
            (first..blocks).step_by(PARTS).for_each(|block| product.run(block, scratch));
            first = (first + PARTS - blocks % PARTS) % PARTS;
        }
    }
}
