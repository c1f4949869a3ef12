//! Kernels whose threads do not meet.

use lazytune::graph::{IGNORE_TARGET, Operation};
use lazytune::kernels::metal::launch::{self, Launch};
use lazytune::kernels::metal::{BiasSpec, RopeSpec, RowsSpec};

use super::{Outcome, agrees_with_cpu, close, noise};
use crate::gpu::{Buffer, Gpu, activations, floats, nothing};

pub fn rope(gpu: &Gpu) -> Outcome {
    for (rows, heads, head_dim, inverse) in [(3, 3, 64, false), (2, 5, 6, true), (4, 1, 130, true)] {
        let (n, angles) = (rows * heads * head_dim, rows * head_dim / 2);
        let x = gpu.round(noise(n, 1));
        let angle = noise(angles, 2);
        let cosines: Vec<f32> = angle.iter().map(|x| (9.0 * x).cos()).collect();
        let sines: Vec<f32> = angle.iter().map(|x| (9.0 * x).sin()).collect();
        let sign = if inverse { -1.0 } else { 1.0 };
        let half = head_dim / 2;
        let expected: Vec<f64> = (0..n)
            .map(|i| {
                let at = i / (heads * head_dim) * half + i % half;
                let (cosine, sine) = (f64::from(cosines[at]), sign * f64::from(sines[at]));
                let (is_second, x) = (i % head_dim >= half, |i: usize| f64::from(x[i]));
                if is_second {
                    x(i) * cosine + x(i - half) * sine
                } else {
                    x(i) * cosine - x(i + half) * sine
                }
            })
            .collect();
        let spec =
            RopeSpec { rows: rows as u32, heads: heads as u32, head_dim: head_dim as u32, sign: sign as f32 };
        let mut buffers = [activations(&x), floats(&cosines), floats(&sines), nothing(n)];
        gpu.run(&launch::rope(spec), &mut buffers)?;
        close("y", buffers[3].floats(), &expected, gpu.tolerance(5e-7))?;
        let (wide, narrow): (&[usize], &[usize]) = (&[rows, heads * head_dim], &[rows, half]);
        let inputs = [(wide, &buffers[0]), (narrow, &buffers[1]), (narrow, &buffers[2])];
        let operation = Operation::Rope { head_dim, inverse };
        agrees_with_cpu(gpu, &operation, &inputs, &[(wide, &buffers[3])], gpu.tolerance(5e-7))?;
    }
    Ok(())
}

/// A gate's kernels, operations, and its function: x to f(x) / x and f'(x).
struct Gate {
    launches: [fn(u32) -> Launch; 2],
    operations: [Operation; 2],
    slopes: fn(f64) -> [f64; 2],
}

fn silu(x: f64) -> [f64; 2] {
    let sigmoid = 1.0 / (1.0 + (-x).exp());
    [sigmoid, sigmoid * (1.0 + x * (1.0 - sigmoid))]
}

fn gelu(x: f64) -> [f64; 2] {
    let root = (2.0 / std::f64::consts::PI).sqrt();
    let tanh = (root * (x + 0.044715 * x.powi(3))).tanh();
    let slope = (1.0 - tanh * tanh) * root * (1.0 + 3.0 * 0.044715 * x * x);
    [(1.0 + tanh) / 2.0, (1.0 + tanh + x * slope) / 2.0]
}

pub fn gated(gpu: &Gpu) -> Outcome {
    let silu = Gate {
        launches: [launch::swiglu, launch::swiglu_gradient],
        operations: [Operation::SwiGlu, Operation::SwiGluGrad],
        slopes: silu,
    };
    let gelu = Gate {
        launches: [launch::geglu, launch::geglu_gradient],
        operations: [Operation::GeGlu, Operation::GeGluGrad],
        slopes: gelu,
    };
    check_gate(gpu, &silu)?;
    check_gate(gpu, &gelu)
}

fn check_gate(gpu: &Gpu, function: &Gate) -> Outcome {
    let n = 1000;
    let gate = gpu.round(noise(n, 1).into_iter().map(|x| 12.0 * x).collect());
    let (up, dy) = (gpu.round(noise(n, 2)), gpu.round(noise(n, 3)));
    let (mut y, mut dgate, mut dup) = (vec![], vec![], vec![]);
    for i in 0..n {
        let (g, u, d) = (f64::from(gate[i]), f64::from(up[i]), f64::from(dy[i]));
        let [ratio, slope] = (function.slopes)(g);
        y.push(g * ratio * u);
        dgate.push(d * u * slope);
        dup.push(d * g * ratio);
    }
    let tolerance = gpu.tolerance(1e-6);
    let (gate, up, dy) = (activations(&gate), activations(&up), activations(&dy));
    let mut forward = [gate.clone(), up.clone(), nothing(n)];
    gpu.run(&function.launches[0](n as u32), &mut forward)?;
    close("y", forward[2].floats(), &y, tolerance)?;
    let mut backward = [gate.clone(), up.clone(), dy.clone(), nothing(n), nothing(n)];
    gpu.run(&function.launches[1](n as u32), &mut backward)?;
    close("dgate", backward[3].floats(), &dgate, tolerance)?;
    close("dup", backward[4].floats(), &dup, tolerance)?;
    let dims: &[usize] = &[10, n / 10];
    let inputs = [(dims, &gate), (dims, &up), (dims, &dy)];
    agrees_with_cpu(gpu, &function.operations[0], &inputs[..2], &[(dims, &forward[2])], tolerance)?;
    let outputs = [(dims, &backward[3]), (dims, &backward[4])];
    agrees_with_cpu(gpu, &function.operations[1], &inputs, &outputs, tolerance)
}

pub fn add_bias(gpu: &Gpu) -> Outcome {
    let (rows, width) = (5, 131);
    let (x, bias) = (gpu.round(noise(rows * width, 1)), gpu.round(noise(width, 2)));
    let expected: Vec<f64> =
        (0..rows * width).map(|i| f64::from(x[i]) + f64::from(bias[i % width])).collect();
    let spec = BiasSpec { rows: rows as u32, width: width as u32 };
    let mut buffers = [activations(&x), activations(&bias), nothing(rows * width)];
    gpu.run(&launch::add_bias(spec), &mut buffers)?;
    close("y", buffers[2].floats(), &expected, gpu.tolerance(1e-7))?;
    let (wide, narrow): (&[usize], &[usize]) = (&[rows, width], &[width]);
    let inputs = [(wide, &buffers[0]), (narrow, &buffers[1])];
    agrees_with_cpu(gpu, &Operation::AddBias, &inputs, &[(wide, &buffers[2])], gpu.tolerance(1e-7))
}

pub fn gather_rows(gpu: &Gpu) -> Outcome {
    let (rows, width, ids) = (7, 130, vec![3, 6, 0, IGNORE_TARGET, 3]);
    let table = gpu.round(noise(rows * width, 1));
    let row = |&id: &u32| match table.chunks(width).nth(id as usize) {
        Some(row) => row.iter().map(|&x| f64::from(x)).collect(),
        None => vec![0.0; width],
    };
    let expected: Vec<f64> = ids.iter().flat_map(row).collect();
    let spec = RowsSpec { count: ids.len() as u32, width: width as u32, rows: rows as u32 };
    let count = ids.len();
    let mut buffers = [activations(&table), Buffer::U32(ids), nothing(expected.len())];
    gpu.run(&launch::gather_rows(spec), &mut buffers)?;
    close("rows", buffers[2].floats(), &expected, 0.0)?;
    let inputs: [(&[usize], &Buffer); 2] = [(&[rows, width], &buffers[0]), (&[count], &buffers[1])];
    agrees_with_cpu(gpu, &Operation::Embedding, &inputs, &[(&[count, width], &buffers[2])], 0.0)
}
