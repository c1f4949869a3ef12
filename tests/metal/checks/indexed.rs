//! Rows and elements chosen by ids.

use lazytune::graph::IGNORE_TARGET;
use lazytune::kernels::metal::launch;
use lazytune::kernels::metal::{PickSpec, RowsSpec};

use super::{Outcome, close, noise};
use crate::gpu::{Buffer, Gpu, activations, nothing};

pub fn check(gpu: &Gpu) -> Outcome {
    scattered_rows(gpu)?;
    elements(gpu)
}

fn scattered_rows(gpu: &Gpu) -> Outcome {
    let (rows, width) = (9, 130);
    let ids: Vec<u32> = vec![4, 0, 4, IGNORE_TARGET, 8, 4, 9, 0, 2];
    let count = ids.len();
    let values = gpu.round(noise(count * width, 1));
    let mut expected = vec![0.0; rows * width];
    for (i, &id) in ids.iter().enumerate().filter(|&(_, &id)| (id as usize) < rows) {
        for column in 0..width {
            expected[id as usize * width + column] += f64::from(values[i * width + column]);
        }
    }
    let spec = RowsSpec { count: count as u32, width: width as u32, rows: rows as u32 };
    let mut links = [Buffer::U32(ids.clone()), Buffer::U32(vec![77; 2 * count])];
    gpu.run(&launch::link_ids(spec), &mut links)?;
    let [_, links] = links;
    let mut y = [nothing(rows * width)];
    gpu.run(&launch::fill((rows * width) as u32, 0.0), &mut y)?;
    let [y] = y;
    let mut buffers = [Buffer::U32(ids), activations(&values), links, y];
    gpu.run(&launch::scatter_rows(spec), &mut buffers)?;
    close("scattered rows", buffers[3].floats(), &expected, gpu.tolerance(1e-6))
}

fn elements(gpu: &Gpu) -> Outcome {
    let (rows, width) = (300, 40);
    let ids: Vec<u32> =
        (0..rows as u32).map(|row| if row % 5 == 0 { IGNORE_TARGET } else { row * 7 % 41 }).collect();
    let x = gpu.round(noise(rows * width, 1));
    let spec = PickSpec { rows: rows as u32, width: width as u32 };
    let taken = |row: usize| match ids[row] as usize {
        id if id < width => f64::from(x[row * width + id]),
        _ => 0.0,
    };
    let expected: Vec<f64> = (0..rows).map(taken).collect();
    let mut buffers = [activations(&x), Buffer::U32(ids.clone()), nothing(rows)];
    gpu.run(&launch::take_last(spec), &mut buffers)?;
    close("taken elements", buffers[2].floats(), &expected, 0.0)?;

    let values = &x[..rows];
    let put = |i: usize| {
        if ids[i / width] as usize == i % width { f64::from(values[i / width]) } else { 0.0 }
    };
    let expected: Vec<f64> = (0..rows * width).map(put).collect();
    let mut buffers = [activations(values), Buffer::U32(ids.clone()), nothing(rows * width)];
    gpu.run(&launch::scatter_last(spec), &mut buffers)?;
    close("scattered elements", buffers[2].floats(), &expected, 0.0)
}
