//! Normalization of rows and its gradients.

use lazytune::graph::{Operation, Scalar};
use lazytune::kernels::metal::RmsNormSpec;
use lazytune::kernels::metal::launch::{Launch, rms_norm, rms_norm_gradient, rms_norm_weight_gradient};

use super::{Outcome, agrees_with_cpu, close, noise};
use crate::gpu::{Gpu, activations, no_floats, nothing};

const EPSILON: f64 = 1e-5;

/// Rows, width, and threads of a threadgroup: at least three SIMD groups.
const SHAPES: [(usize, usize, u32); 4] = [(3, 64, 256), (5, 100, 96), (2, 1, 96), (4, 577, 160)];

#[derive(Default)]
struct Reference {
    y: Vec<f64>,
    dx: Vec<f64>,
    dweight: Vec<f64>,
}

fn reference(width: usize, [x, weight, dy]: [&[f32]; 3]) -> Reference {
    let mut all = Reference { dweight: vec![0.0; width], ..Reference::default() };
    for (x, dy) in x.chunks(width).zip(dy.chunks(width)) {
        let wide = |values: &[f32]| values.iter().map(|&value| f64::from(value)).collect::<Vec<_>>();
        let (x, weight, dy) = (wide(x), wide(weight), wide(dy));
        let n = width as f64;
        let inverse = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / n + EPSILON).sqrt();
        let along: f64 = (0..width).map(|i| x[i] * dy[i] * weight[i]).sum::<f64>() * inverse * inverse / n;
        for i in 0..width {
            all.y.push(x[i] * inverse * weight[i]);
            all.dx.push(inverse * (dy[i] * weight[i] - along * x[i]));
            all.dweight[i] += dy[i] * x[i] * inverse;
        }
    }
    all
}

pub fn check(gpu: &Gpu) -> Outcome {
    SHAPES.iter().try_for_each(|&(rows, width, threads)| check_shape(gpu, rows, width, threads))
}

fn check_shape(gpu: &Gpu, rows: usize, width: usize, threads: u32) -> Outcome {
    let n = rows * width;
    let [x, weight, dy] =
        [(n, 1), (width, 2), (n, 3)].map(|(n, seed)| gpu.round(noise(n, seed + width as u64)));
    let expected = reference(width, [&x, &weight, &dy]);
    let spec = RmsNormSpec { rows: rows as u32, width: width as u32, epsilon: EPSILON as f32 };
    let sized = |launch: Launch| Launch { threads: [threads, 1, 1], ..launch };
    let (x, weight, dy) = (activations(&x), activations(&weight), activations(&dy));
    let tolerance = gpu.tolerance(2e-6);

    let mut forward = [x.clone(), weight.clone(), nothing(n)];
    gpu.run(&sized(rms_norm(spec)), &mut forward)?;
    close("y", forward[2].floats(), &expected.y, tolerance)?;
    let (wide, narrow): (&[usize], &[usize]) = (&[rows, width], &[width]);
    let norm = Operation::RmsNorm { epsilon: Scalar(EPSILON) };
    let inputs = [(wide, &x), (narrow, &weight), (wide, &dy)];
    agrees_with_cpu(gpu, &norm, &inputs[..2], &[(wide, &forward[2])], tolerance)?;

    let mut backward = [x.clone(), weight.clone(), dy.clone(), nothing(n), no_floats(rows)];
    gpu.run(&sized(rms_norm_gradient(spec)), &mut backward)?;
    let mut columns = [x.clone(), dy.clone(), backward[4].clone(), nothing(width)];
    gpu.run(&sized(rms_norm_weight_gradient(spec)), &mut columns)?;
    close("dx", backward[3].floats(), &expected.dx, tolerance)?;
    close("dweight", columns[3].floats(), &expected.dweight, tolerance)?;
    let gradient =
        Operation::RmsNormGrad { epsilon: Scalar(EPSILON), weight_gradient: true, residual: false };
    agrees_with_cpu(gpu, &gradient, &inputs, &[(wide, &backward[3]), (narrow, &columns[3])], tolerance)
}
