//! Masks.

use lazytune::graph::{DType, Operation, Scalar, Shape};
use lazytune::kernels::metal::launch;
use lazytune::kernels::metal::{DropoutSpec, Element, MaskSpec};

use super::{Outcome, agrees_with_cpu, close};
use crate::gpu::{Buffer, Gpu, nothing, rounded};

const MASKED: f64 = -1e30;

pub fn check(gpu: &Gpu) -> Outcome {
    dropout(gpu)?;
    attention_mask(gpu)?;
    cache_mask(gpu)
}

/// The CPU's bits: its generator is checked against published numbers.
fn dropout(gpu: &Gpu) -> Outcome {
    let (n, stream, probability) = (1003, 5, 0.3);
    let spec = DropoutSpec {
        threshold: (probability * 4_294_967_296.0f64).round() as u64,
        elements: n as u32,
        stream,
        keep: (1.0 / (1.0 - probability)) as f32,
        unused: 0,
    };
    let mut buffers = [Buffer::U32(vec![0x1234_5678, 0x9abc_def0]), nothing(n)];
    gpu.run(&launch::dropout_mask(spec), &mut buffers)?;
    let keep = rounded(gpu.element, spec.keep);
    let found = buffers[1].floats();
    let dropped = found.iter().filter(|&&y| y == 0.0).count();
    if !(270..=330).contains(&dropped) || found.iter().any(|&y| y != 0.0 && y != keep) {
        return Err(format!("{dropped} of {n} elements are dropped, and the others are no {keep}"));
    }
    let dtype = if gpu.element == Element::Bf16 { DType::Bf16 } else { DType::F32 };
    let shape = Shape::new(&[n]).unwrap();
    let operation = Operation::DropoutMask { stream, probability: Scalar(probability), shape, dtype };
    agrees_with_cpu(gpu, &operation, &[(&[2], &buffers[0])], &[(&[n], &buffers[1])], 0.0)
}

fn attention_mask(gpu: &Gpu) -> Outcome {
    let (batch, seq, window) = (3, 45, 20);
    let segments: Vec<u32> = (0..batch * seq).map(|token| token % seq / 17).collect();
    let seen = |i: u32| {
        let (row, key) = (i / seq, i % seq);
        let (query, start) = (row % seq, row / seq * seq);
        key <= query && query - key < window && segments[(start + key) as usize] == segments[row as usize]
    };
    let score = |seen: bool| if seen { 0.0 } else { MASKED };
    let expected: Vec<f64> = (0..batch * seq * seq).map(|i| score(seen(i))).collect();
    let spec = MaskSpec { rows: batch * seq, keys: seq, window };
    let mut buffers = [Buffer::U32(segments.clone()), nothing(expected.len())];
    gpu.run(&launch::attention_mask(spec), &mut buffers)?;
    masks(gpu, &buffers[1], &expected)
}

fn cache_mask(gpu: &Gpu) -> Outcome {
    let (rows, keys) = (7, 50);
    for (start, window) in [(10, u32::MAX), (30, 8)] {
        let seen = |i: u32| {
            let query = start + i / keys;
            i % keys <= query && query - i % keys < window
        };
        let expected: Vec<f64> = (0..rows * keys).map(|i| if seen(i) { 0.0 } else { MASKED }).collect();
        let spec = MaskSpec { rows, keys, window };
        let mut buffers = [Buffer::U32(vec![start]), nothing(expected.len())];
        gpu.run(&launch::cache_mask(spec), &mut buffers)?;
        masks(gpu, &buffers[1], &expected)?;
    }
    Ok(())
}

/// Scores that nobody sees are minus infinity in f16.
fn masks(gpu: &Gpu, found: &Buffer, expected: &[f64]) -> Outcome {
    let expected: Vec<f64> = expected.iter().map(|&x| f64::from(rounded(gpu.element, x as f32))).collect();
    let same = found.floats().iter().zip(&expected).all(|(&found, &expected)| f64::from(found) == expected);
    if same { Ok(()) } else { close("the mask", found.floats(), &expected, 0.0) }
}
