//! Sums and maxima along an axis.

use lazytune::kernels::metal::ReduceSpec;
use lazytune::kernels::metal::launch;

use super::{Outcome, close, noise};
use crate::gpu::{Gpu, activations, nothing};

pub fn check(gpu: &Gpu) -> Outcome {
    // Rows of several SIMD groups and of one, and columns in more blocks and fewer rows than there are threads.
    for extents in [[3, 1000, 1], [5, 7, 1], [3, 37, 70], [2, 2, 33]] {
        for maximum in [false, true] {
            reduced(gpu, extents, maximum)?;
        }
    }
    Ok(())
}

fn reduced(gpu: &Gpu, extents: [usize; 3], maximum: bool) -> Outcome {
    let [outer, axis, inner] = extents;
    // All below zero, so that a maximum does not begin there.
    let x = gpu.round(noise(outer * axis * inner, 1).into_iter().map(|x| x - 1.5).collect());
    let along = |i: usize| {
        let (row, column) = (i / inner, i % inner);
        let x = &x;
        (0..axis).map(move |at| f64::from(x[(row * axis + at) * inner + column]))
    };
    let result = |i: usize| if maximum { along(i).fold(f64::MIN, f64::max) } else { along(i).sum::<f64>() };
    let expected: Vec<f64> = (0..outer * inner).map(result).collect();
    let spec =
        ReduceSpec { outer: outer as u32, axis: axis as u32, inner: inner as u32, maximum: maximum.into() };
    let launch = if inner == 1 { launch::reduce_rows(spec) } else { launch::reduce_columns(spec) };
    let mut buffers = [activations(&x), nothing(outer * inner)];
    gpu.run(&launch, &mut buffers)?;
    let what = format!("reduction of {extents:?}, maximum {maximum}");
    close(&what, buffers[1].floats(), &expected, gpu.tolerance(2e-6))?;

    // One number that is none, in the last row.
    let mut unknown = x.clone();
    unknown[(outer - 1) * axis * inner + axis / 2 * inner] = f32::NAN;
    let mut buffers = [activations(&unknown), nothing(outer * inner)];
    gpu.run(&launch, &mut buffers)?;
    let found = buffers[1].floats();
    let wrong = (0..found.len()).find(|&i| found[i].is_nan() != (i == (outer - 1) * inner));
    wrong.map_or(Ok(()), |i| Err(format!("{what}: a NaN leaves {} at {i}", found[i])))
}
