//! The squared norm and the update of all trained tensors.

use lazytune::graph::{AdamWSpec, Operation, Scalar};
use lazytune::kernels::metal::Chunk;
use lazytune::kernels::metal::launch::{self, Launch};

use super::{Outcome, agrees_with_cpu, close, noise};
use crate::gpu::{Buffer, Gpu, activations, floats, no_floats};

/// Elements of the trained tensors, and where each one's gradient and state begin: in other orders, with gaps.
const TENSORS: [(u64, u64, u64); 3] = [(8, 5000, 37), (64, 0, 4900), (5000, 5040, 1)];
const GRADIENTS: usize = 5001;
const STATES: usize = 5041;

fn chunk_buffer() -> (Vec<Chunk>, Buffer) {
    let chunks = launch::chunks(&TENSORS);
    let bytes = bytemuck::cast_slice(&chunks).to_vec();
    (chunks, Buffer::Bytes(bytes))
}

/// Three SIMD groups, so that threads take several elements each.
fn sized(launch: Launch) -> Launch {
    Launch { threads: [96, 1, 1], ..launch }
}

pub fn sum_of_squares(gpu: &Gpu) -> Outcome {
    let gradients = gpu.round(noise(GRADIENTS, 5));
    let (chunks, table) = chunk_buffer();
    let squares = |&(gradient, _, elements): &(u64, u64, u64)| {
        let range = gradient as usize..(gradient + elements) as usize;
        gradients[range].iter().map(|&x| f64::from(x).powi(2)).sum::<f64>()
    };
    let expected: f64 = TENSORS.iter().map(squares).sum();
    let mut partial = [activations(&gradients), table, no_floats(chunks.len())];
    gpu.run(&sized(launch::sum_of_squares(chunks.len() as u32)), &mut partial)?;
    let mut total = [partial[2].clone(), no_floats(1)];
    gpu.run(&sized(launch::sum_partials(chunks.len() as u32)), &mut total)?;
    close("the sum of squares", total[1].floats(), &[expected], 2e-7)?;

    // More partial sums than threads.
    let many = noise(1000, 6);
    let expected: f64 = many.iter().map(|&x| f64::from(x)).sum();
    let mut total = [floats(&many), no_floats(1)];
    gpu.run(&sized(launch::sum_partials(1000)), &mut total)?;
    close("the sum of many", total[1].floats(), &[expected], 1e-6)
}

const SPEC: AdamWSpec =
    AdamWSpec { beta1: Scalar(0.9), beta2: Scalar(0.999), epsilon: Scalar(1e-8), weight_decay: Scalar(0.01) };

/// One tensor's states in f64: parameter, first and second moment.
type Wide = [f64; 3];

fn update([p, m, v]: &mut Wide, g: f64, rate: f64, number: i32) {
    *m = 0.9 * *m + 0.1 * g;
    *v = 0.999 * *v + 0.001 * g * g;
    let (first, second) = (*m / (1.0 - 0.9f64.powi(number)), *v / (1.0 - 0.999f64.powi(number)));
    *p -= rate * 0.01 * *p + rate * first / (second.sqrt() + 1e-8);
}

pub fn check(gpu: &Gpu) -> Outcome {
    let mut states = [noise(STATES, 1), vec![0.0; STATES], vec![0.0; STATES]];
    let mut wide: Vec<Wide> = states[0].iter().map(|&p| [f64::from(p), 0.0, 0.0]).collect();
    // The bias corrections of step 400 and 5000 take other branches than those of the first steps.
    for number in [1, 2, 400, 5000] {
        let gradients = gpu.round(noise(GRADIENTS, 10 + number as u64));
        let (rate, factor) = (1e-2f32, 0.5f32);
        for (gradient, state, elements) in TENSORS {
            for i in 0..elements as usize {
                let g = f64::from(gradients[gradient as usize + i]) * f64::from(factor);
                update(&mut wide[state as usize + i], g, f64::from(rate), number);
            }
        }
        let before = states.clone();
        states = step(gpu, &gradients, states, [rate, number as f32, factor])?;
        for (i, name) in ["parameters", "first moments", "second moments"].iter().enumerate() {
            let expected: Vec<f64> = wide.iter().map(|state| state[i]).collect();
            close(name, &states[i], &expected, 2e-6)?;
        }
        agrees(gpu, &gradients, &before, &states, [rate, number as f32, factor])?;
        let unchanged = step(gpu, &gradients, states.clone(), [rate, number as f32, f32::NAN])?;
        if unchanged != states {
            return Err("a step whose factor is NaN changed the states".into());
        }
    }
    Ok(())
}

/// Runs one update; `numbers` are learning rate, step and factor.
fn step(
    gpu: &Gpu,
    gradients: &[f32],
    states: [Vec<f32>; 3],
    numbers: [f32; 3],
) -> Result<[Vec<f32>; 3], String> {
    let (chunks, table) = chunk_buffer();
    let mut buffers = vec![activations(gradients), table];
    buffers.extend(states.iter().map(|state| floats(state)));
    buffers.extend(numbers.map(|number| floats(&[number])));
    gpu.run(&sized(launch::adamw(SPEC, chunks.len() as u32)), &mut buffers)?;
    Ok([2, 3, 4].map(|i| buffers[i].floats().to_vec()))
}

/// The CPU's kernel takes one tensor at a time, and gradients in f32.
fn agrees(
    gpu: &Gpu,
    gradients: &[f32],
    before: &[Vec<f32>; 3],
    after: &[Vec<f32>; 3],
    numbers: [f32; 3],
) -> Outcome {
    let (gradient, state, elements) = TENSORS[1];
    let part = |values: &[f32]| floats(&values[state as usize..(state + elements) as usize]);
    let gradient = floats(&gradients[gradient as usize..(gradient + elements) as usize]);
    let [p, m, v] = before.each_ref().map(|values| part(values));
    let numbers = numbers.map(|number| floats(&[number]));
    let (wide, one): (&[usize], &[usize]) = (&[elements as usize], &[1]);
    let mut inputs = vec![(wide, &p), (wide, &gradient), (wide, &m), (wide, &v)];
    inputs.extend(numbers.iter().map(|number| (one, number)));
    agrees_with_cpu(gpu, &Operation::AdamW(SPEC), &inputs, &[(wide, &part(&after[0]))], 2e-6)
}
