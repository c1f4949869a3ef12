use super::{Grouped, Kernel, MatMul, MatMulSpec};

/// Rows that one part computes.
const PART_ROWS: usize = 16;

impl Kernel for MatMul<f64> {
    fn parts(&self) -> usize {
        self.spec.batch * self.spec.rows.div_ceil(PART_ROWS)
    }

    fn run(&self, part: usize, _scratch: &mut [u8]) {
        let MatMulSpec { rows, inner, columns, transpose_left, transpose_right, .. } = self.spec;
        let blocks = rows.div_ceil(PART_ROWS);
        let (matrix, first) = (part / blocks, part % blocks * PART_ROWS);
        let left = &self.left.as_slice()[matrix * rows * inner..][..rows * inner];
        let right = &self.right.as_slice()[matrix * inner * columns..][..inner * columns];
        let (left_row, left_step) = if transpose_left { (1, rows) } else { (inner, 1) };
        let (right_step, right_column) = if transpose_right { (1, inner) } else { (columns, 1) };
        for row in first..rows.min(first + PART_ROWS) {
            let start = (matrix * rows + row) * columns;
            // SAFETY: rows are disjoint, and each belongs to one part.
            let product = unsafe { self.product.range(start..start + columns) };
            product.fill(0.0);
            for k in 0..inner {
                let value = left[row * left_row + k * left_step];
                for (column, sum) in product.iter_mut().enumerate() {
                    *sum += value * right[k * right_step + column * right_column];
                }
            }
        }
    }
}

impl Grouped for MatMul<f64> {
    fn most_scratch_bytes(_spec: &MatMulSpec) -> usize {
        0
    }
}
