//! Batches of products of matrices.

use lazytune::kernels::metal::MatrixSpec;
use lazytune::kernels::metal::launch;

use super::{Outcome, close, noise};
use crate::gpu::{Gpu, activations, no_floats, nothing};

pub fn check(gpu: &Gpu) -> Outcome {
    for (left_across, right_across) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let spec = MatrixSpec { rows: 70, columns: 69, depth: 37, left_across, right_across };
        for wide in [false, true] {
            products(gpu, spec, wide)?;
        }
    }
    Ok(())
}

fn products(gpu: &Gpu, spec: MatrixSpec, wide: bool) -> Outcome {
    let (batch, rows, columns, depth) = (2, spec.rows as usize, spec.columns as usize, spec.depth as usize);
    let (left, right) =
        (gpu.round(noise(batch * rows * depth, 1)), gpu.round(noise(batch * columns * depth, 2)));
    let at = |values: &[f32], across: u32, extent: usize, [product, outer, inner]: [usize; 3]| {
        let within = if across != 0 { inner * extent + outer } else { outer * depth + inner };
        f64::from(values[product * extent * depth + within])
    };
    let sum = |i: usize| -> f64 {
        let [product, row, column] = [i / columns / rows, i / columns % rows, i % columns];
        let term = |k| {
            at(&left, spec.left_across, rows, [product, row, k])
                * at(&right, spec.right_across, columns, [product, column, k])
        };
        (0..depth).map(term).sum()
    };
    let n = batch * rows * columns;
    let expected: Vec<f64> = (0..n).map(sum).collect();
    let y = if wide { no_floats(n) } else { nothing(n) };
    let mut buffers = [activations(&left), activations(&right), y];
    gpu.run(&launch::matrix_products(spec, batch as u32, wide), &mut buffers)?;
    let tolerance = if wide { 2e-6 } else { gpu.tolerance(2e-6) };
    close("a batch of products", buffers[2].floats(), &expected, tolerance)
}
