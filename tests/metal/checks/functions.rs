//! Functions of single elements, and casts.

use lazytune::kernels::metal::AffineSpec;
use lazytune::kernels::metal::launch;

use super::{Outcome, close, noise};
use crate::gpu::{Buffer, Gpu, activations, floats, no_floats, nothing, rounded};

/// More than a threadgroup has, and no multiple of it.
const N: usize = 700;

/// In the order of the source's numbers.
const UNARY: [fn(f64) -> f64; 9] = [
    |x| -x,
    f64::exp,
    f64::ln,
    f64::sqrt,
    f64::recip,
    |x| 1.0 / (1.0 + (-x).exp()),
    f64::tanh,
    f64::sin,
    f64::cos,
];
/// Logarithms and roots are of positive numbers.
const OF_POSITIVE: [usize; 2] = [2, 3];

const BINARY: [fn(f64, f64) -> f64; 6] =
    [|a, b| a + b, |a, b| a - b, |a, b| a * b, |a, b| a / b, f64::min, |a, b| f64::from(u8::from(a == b))];

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| f64::from(x)).collect()
}

pub fn check(gpu: &Gpu) -> Outcome {
    let x = gpu.round(noise(N, 1).into_iter().map(|x| 4.0 * x).collect());
    let tolerance = gpu.tolerance(1e-6);
    for (number, function) in UNARY.iter().enumerate() {
        let positive = OF_POSITIVE.contains(&number);
        let x: Vec<f32> = x.iter().map(|&x| if positive { x.abs() } else { x }).collect();
        let mut buffers = [activations(&x), nothing(N)];
        gpu.run(&launch::unary(N as u32, number as u32), &mut buffers)?;
        let expected: Vec<f64> = wide(&x).into_iter().map(function).collect();
        close(&format!("function {number}"), buffers[1].floats(), &expected, tolerance)?;
    }
    // Every third pair is equal.
    let other = gpu.round(noise(N, 2));
    let b: Vec<f32> = (0..N).map(|i| if i % 3 == 0 { x[i] } else { other[i] }).collect();
    for (number, function) in BINARY.iter().enumerate() {
        let mut buffers = [activations(&x), activations(&b), nothing(N)];
        gpu.run(&launch::binary(N as u32, number as u32), &mut buffers)?;
        let expected: Vec<f64> = wide(&x).into_iter().zip(wide(&b)).map(|(a, b)| function(a, b)).collect();
        close(&format!("function {number} of two"), buffers[2].floats(), &expected, tolerance)?;
    }
    let mut unknown = [activations(&[1.0]), activations(&[f32::NAN]), activations(&[0.0])];
    gpu.run(&launch::binary(1, 4), &mut unknown)?;
    if !unknown[2].floats()[0].is_nan() {
        return Err("the minimum lost a NaN".into());
    }
    affine(gpu, &x)?;
    casts(gpu, &x)
}

fn affine(gpu: &Gpu, x: &[f32]) -> Outcome {
    let (elements, tolerance) = (N as u32, gpu.tolerance(1e-6));
    let mut buffers = [activations(x), nothing(N)];
    gpu.run(&launch::affine(AffineSpec { elements, multiply: 0.3, add: -2.5 }), &mut buffers)?;
    let expected: Vec<f64> = wide(x).iter().map(|x| x * f64::from(0.3f32) - 2.5).collect();
    close("x * multiply + add", buffers[1].floats(), &expected, tolerance)?;
    let mut filled = [nothing(N)];
    gpu.run(&launch::fill(elements, 0.7), &mut filled)?;
    close("a filled tensor", filled[0].floats(), &[0.7; N], tolerance)
}

fn casts(gpu: &Gpu, x: &[f32]) -> Outcome {
    let mut wider = [activations(x), no_floats(N)];
    gpu.run(&launch::to_float(N as u32), &mut wider)?;
    close("f32 of activations", wider[1].floats(), &wide(x), 0.0)?;
    let values = noise(N, 3);
    let nearest: Vec<f32> = values.iter().map(|&x| rounded(gpu.element, x)).collect();
    let mut narrower = [floats(&values), nothing(N)];
    gpu.run(&launch::from_float(N as u32), &mut narrower)?;
    close("activations of f32", narrower[1].floats(), &wide(&nearest), 0.0)?;
    let ids: Vec<u32> = (0..N as u32).map(|i| i % 200).collect();
    let expected: Vec<f64> = ids.iter().map(|&id| f64::from(id)).collect();
    let mut numbers = [Buffer::U32(ids), nothing(N)];
    gpu.run(&launch::from_ids(N as u32), &mut numbers)?;
    close("activations of ids", numbers[1].floats(), &expected, 0.0)
}
