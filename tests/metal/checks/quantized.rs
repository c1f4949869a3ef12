//! Products with quantized weights, which candle quantizes and decodes.

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use lazytune::kernels::metal::WeightFormat;
use lazytune::kernels::metal::launch;

use super::{Outcome, close, noise};
use crate::gpu::{Buffer, Gpu, activations, nothing};

fn candle_format(format: WeightFormat) -> GgmlDType {
    match format {
        WeightFormat::Q4_0 => GgmlDType::Q4_0,
        WeightFormat::Q4_1 => GgmlDType::Q4_1,
        WeightFormat::Q5_0 => GgmlDType::Q5_0,
        WeightFormat::Q5_1 => GgmlDType::Q5_1,
        WeightFormat::Q8_0 => GgmlDType::Q8_0,
        WeightFormat::Q2K => GgmlDType::Q2K,
        WeightFormat::Q3K => GgmlDType::Q3K,
        WeightFormat::Q4K => GgmlDType::Q4K,
        WeightFormat::Q5K => GgmlDType::Q5K,
        WeightFormat::Q6K => GgmlDType::Q6K,
    }
}

/// A quantized weight's bytes, and the values they stand for.
fn weight(format: WeightFormat, [outputs, inputs]: [usize; 2]) -> (Buffer, Vec<f32>) {
    // Rows of different magnitudes, none around zero alone.
    let values = noise(outputs * inputs, 2);
    let spread = |(i, x): (usize, &f32)| (x + 0.3) * (1.0 + (i / 16 % 7) as f32);
    let values: Vec<f32> = values.iter().enumerate().map(spread).collect();
    let tensor = Tensor::from_vec(values, (outputs, inputs), &Device::Cpu).unwrap();
    let quantized = QTensor::quantize(&tensor, candle_format(format)).unwrap();
    let decoded = quantized.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    (Buffer::Bytes(quantized.data().unwrap().into_owned()), decoded)
}

pub fn check(gpu: &Gpu) -> Outcome {
    for format in WeightFormat::ALL {
        let constants = vec![gpu.constants[0], u64::from(format.constant())];
        check_format(&Gpu { constants, ..gpu.clone() }, format)
            .map_err(|problem| format!("{format:?}: {problem}"))?;
    }
    Ok(())
}

fn check_format(gpu: &Gpu, format: WeightFormat) -> Outcome {
    let inputs = if format.block_values() == 32 { 96 } else { 256 };
    let (rows, outputs) = (5, 67);
    let (bytes, decoded) = weight(format, [outputs, inputs]);
    let Buffer::Bytes(raw) = &bytes else { unreachable!() };
    let blocks = outputs * inputs / format.block_values() as usize;
    if raw.len() != blocks * format.block_bytes() as usize {
        return Err(format!("{blocks} blocks take {} bytes", raw.len()));
    }
    for transpose in [false, true] {
        let (depth, columns) = if transpose { (outputs, inputs) } else { (inputs, outputs) };
        let x = gpu.round(noise(rows * depth, 1));
        let value = |column: usize, k: usize| {
            f64::from(if transpose { decoded[k * inputs + column] } else { decoded[column * inputs + k] })
        };
        let sum = |row: usize, column: usize| -> f64 {
            (0..depth).map(|k| f64::from(x[row * depth + k]) * value(column, k)).sum()
        };
        let expected: Vec<f64> = (0..rows * columns).map(|at| sum(at / columns, at % columns)).collect();
        let mut buffers = [activations(&x), bytes.clone(), nothing(rows * columns)];
        let launch =
            launch::quantized_product(format, rows as u32, [outputs, inputs].map(|n| n as u32), transpose);
        gpu.run(&launch, &mut buffers)?;
        close("y", buffers[2].floats(), &expected, gpu.tolerance(2e-6))?;
    }
    Ok(())
}
