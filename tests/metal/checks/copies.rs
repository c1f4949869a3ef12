//! Copies that change the layout.

use lazytune::kernels::metal::launch;
use lazytune::kernels::metal::{ConcatSpec, RowsSpec, StridedSpec};

use super::{Outcome, close, noise};
use crate::gpu::{Buffer, Gpu, activations, nothing};

fn exact(what: &str, found: &Buffer, expected: &[f32]) -> Outcome {
    let expected: Vec<f64> = expected.iter().map(|&x| f64::from(x)).collect();
    close(what, found.floats(), &expected, 0.0)
}

pub fn check(gpu: &Gpu) -> Outcome {
    let x = gpu.round(noise(1000, 1));
    let mut whole = [activations(&x), nothing(x.len())];
    gpu.run(&launch::copy(x.len() as u32), &mut whole)?;
    exact("a copy", &whole[1], &x)?;
    // Wide and narrow rows; a stride of 0 repeats, and the last case takes every other element.
    for (extents, strides, offset) in [
        ([2, 3, 1, 2, 70], [0, 7, 0, 150, 1], 5),
        ([2, 2, 3, 37, 3], [300, 30, 0, 3, 100], 1),
        ([1, 1, 1, 1, 400], [0, 0, 0, 0, 2], 200),
    ] {
        strided(gpu, &x, extents, strides, offset)?;
    }
    joined(gpu, &x)?;
    written(gpu, &x)
}

fn strided(gpu: &Gpu, x: &[f32], extents: [u32; 5], strides: [u32; 5], offset: u64) -> Outcome {
    let [extent_0, extent_1, extent_2, extent_3, extent_4] = extents;
    let [stride_0, stride_1, stride_2, stride_3, stride_4] = strides;
    let elements = extents.iter().product::<u32>();
    let from = |mut i: u32| {
        let steps = extents.iter().zip(strides).rev().map(|(extent, stride)| {
            let step = i % extent * stride;
            i /= extent;
            step
        });
        x[offset as usize + steps.sum::<u32>() as usize]
    };
    let expected: Vec<f32> = (0..elements).map(from).collect();
    #[rustfmt::skip]
    let spec = StridedSpec {
        offset,
        extent_0, extent_1, extent_2, extent_3, extent_4,
        stride_0, stride_1, stride_2, stride_3, stride_4,
    };
    let mut buffers = [activations(x), nothing(expected.len())];
    gpu.run(&launch::strided_copy(spec), &mut buffers)?;
    exact("a strided copy", &buffers[1], &expected)
}

/// Two launches side by side: of four tensors, one of them empty, and of one.
fn joined(gpu: &Gpu, x: &[f32]) -> Outcome {
    let (rows, columns) = (5, 31);
    let parts: Vec<Vec<f32>> =
        [7, 0, 3, 12, 9].into_iter().map(|width| x[width..width + rows * width].to_vec()).collect();
    let share = |part: &Vec<f32>, row: usize| {
        let width = part.len() / rows;
        part[row * width..(row + 1) * width].to_vec()
    };
    let expected: Vec<f32> =
        (0..rows).flat_map(|row| parts.iter().flat_map(move |part| share(part, row))).collect();
    let width = |i: usize| (parts[i].len() / rows) as u32;
    let spec = ConcatSpec {
        rows: rows as u32,
        columns: columns as u32,
        start: 0,
        width_0: width(0),
        width_1: width(1),
        width_2: width(2),
        width_3: width(3),
    };
    let part = |i: usize| activations(&parts[i]);
    let mut first = [part(0), part(1), part(2), part(3), nothing(rows * columns)];
    gpu.run(&launch::concat(spec), &mut first)?;
    let [.., y] = first;
    let spec = ConcatSpec { start: 22, width_0: width(4), width_1: 0, width_2: 0, width_3: 0, ..spec };
    let mut second = [part(4), part(4), part(4), part(4), y];
    gpu.run(&launch::concat(spec), &mut second)?;
    exact("tensors side by side", &second[4], &expected)
}

/// The last of three rows has no place.
fn written(gpu: &Gpu, x: &[f32]) -> Outcome {
    let (rows, width) = (6, 40);
    let state = &x[..rows * width];
    let values = &x[500..500 + 3 * width];
    let mut expected = state.to_vec();
    expected[4 * width..].copy_from_slice(&values[..2 * width]);
    let spec = RowsSpec { count: 3, width: width as u32, rows: rows as u32 };
    let mut buffers = [activations(values), Buffer::U32(vec![4]), activations(state)];
    gpu.run(&launch::write_rows(spec), &mut buffers)?;
    exact("written rows", &buffers[2], &expected)
}
