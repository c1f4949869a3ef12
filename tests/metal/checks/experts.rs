//! Mixtures of experts.

use lazytune::graph::{Operation, RouteSide};
use lazytune::kernels::metal::launch;
use lazytune::kernels::metal::{ExpertNumbers, RouteNumbers};

use super::{Outcome, agrees_with_cpu, close, noise};
use crate::gpu::{Buffer, Gpu, activations, nothing};

pub fn check(gpu: &Gpu) -> Outcome {
    for (tokens, experts, chosen) in [(70, 5, 2), (700, 40, 3), (3, 4, 4)] {
        routes(gpu, tokens, experts, chosen)?;
    }
    for transpose in [false, true] {
        products(gpu, transpose)?;
    }
    Ok(())
}

/// Tokens in order of their expert, the first of equal scores and the last of what is not a number.
fn routes(gpu: &Gpu, tokens: usize, experts: usize, chosen: usize) -> Outcome {
    let mut scores = gpu.round(noise(tokens * experts, 1));
    // Equal scores, and rows with none.
    scores.iter_mut().step_by(3).for_each(|score| *score = 0.5);
    scores[experts + 1] = f32::NAN;
    scores[..experts].fill(f32::NAN);
    let best = |token: usize| {
        let rank = |expert: usize| match scores[token * experts + expert] {
            score if score.is_nan() => f32::NEG_INFINITY,
            score => score,
        };
        let mut all: Vec<usize> = (0..experts).collect();
        all.sort_by(|&a, &b| rank(b).total_cmp(&rank(a)));
        all.truncate(chosen);
        all
    };
    let mut pairs: Vec<(usize, usize)> =
        (0..tokens).flat_map(|token| best(token).into_iter().map(move |expert| (expert, token))).collect();
    pairs.sort_unstable();
    let n = pairs.len();
    for side in [RouteSide::Tokens, RouteSide::Experts] {
        let of_experts = u32::from(side == RouteSide::Experts);
        let [tokens, experts, chosen_] = [tokens, experts, chosen].map(|count| count as u32);
        let spec = RouteNumbers { tokens, experts, chosen: chosen_, of_experts };
        let mut choices = [activations(&scores), Buffer::U32(vec![77; n])];
        gpu.run(&launch::choose_experts(spec), &mut choices)?;
        let [scores, choices] = choices;
        let mut sorted = [choices, Buffer::U32(vec![77; n])];
        gpu.run(&launch::sort_pairs(spec), &mut sorted)?;
        let expected =
            pairs.iter().map(|&(expert, token)| (if of_experts != 0 { expert } else { token }) as u32);
        let [_, found] = sorted;
        if found != Buffer::U32(expected.collect()) {
            return Err(format!("{side:?} of {spec:?} are {found:?}"));
        }
        let dims: [usize; 2] = [tokens as usize, experts as usize];
        let operation = Operation::Route { chosen, side };
        agrees_with_cpu(gpu, &operation, &[(&dims, &scores)], &[(&[n], &found)], 0.0)?;
    }
    Ok(())
}

const EXPERTS: usize = 9;
const INPUTS: usize = 37;
const OUTPUTS: usize = 70;

/// Experts without rows, with a few, and with more than a tile; two rows have none.
fn ids() -> Vec<u32> {
    let runs = [(0, 5), (1, 20), (3, 1), (4, 66), (8, 40), (9, 2)];
    runs.into_iter().flat_map(|(expert, rows)| vec![expert; rows]).collect()
}

fn products(gpu: &Gpu, transpose: bool) -> Outcome {
    let ids = ids();
    let n = ids.len();
    let (x, dy) = (gpu.round(noise(n * INPUTS, 1)), gpu.round(noise(n * OUTPUTS, 2)));
    let weight = gpu.round(noise(EXPERTS * INPUTS * OUTPUTS, 3));
    let [mut y, mut dweight] = [n * OUTPUTS, weight.len()].map(|n| vec![0.0f64; n]);
    for (row, expert) in ids.iter().map(|&id| id as usize).enumerate().filter(|&(_, id)| id < EXPERTS) {
        for (output, input) in (0..OUTPUTS).flat_map(|output| (0..INPUTS).map(move |input| (output, input))) {
            let within = if transpose { input * OUTPUTS + output } else { output * INPUTS + input };
            let value = f64::from(x[row * INPUTS + input]);
            let at = expert * INPUTS * OUTPUTS;
            y[row * OUTPUTS + output] += value * f64::from(weight[at + within]);
            dweight[at + output * INPUTS + input] += value * f64::from(dy[row * OUTPUTS + output]);
        }
    }
    let [rows, inputs, outputs, experts] = [n, INPUTS, OUTPUTS, EXPERTS].map(|extent| extent as u32);
    let spec = ExpertNumbers { rows, inputs, outputs, experts, transpose: transpose.into() };
    let tolerance = gpu.tolerance(2e-6);
    let experts = Buffer::U32(ids);
    let mut linear = [activations(&x), activations(&weight), experts.clone(), nothing(y.len())];
    gpu.run(&launch::expert_linear(spec), &mut linear)?;
    close("rows through their experts", linear[3].floats(), &y, tolerance)?;
    let mut gradient = [activations(&dy), activations(&x), experts.clone(), nothing(dweight.len())];
    gpu.run(&launch::expert_weight_gradient(spec), &mut gradient)?;
    close("the gradient of experts", gradient[3].floats(), &dweight, tolerance)?;

    let matrix = if transpose { [EXPERTS, INPUTS, OUTPUTS] } else { [EXPERTS, OUTPUTS, INPUTS] };
    let (of_x, of_y, of_ids): (&[usize], &[usize], &[usize]) = (&[n, INPUTS], &[n, OUTPUTS], &[n]);
    let inputs = [(of_x, &linear[0]), (&matrix[..], &linear[1]), (of_ids, &experts)];
    let operation = Operation::ExpertLinear { transpose_weight: transpose };
    agrees_with_cpu(gpu, &operation, &inputs, &[(of_y, &linear[3])], 2.0 * tolerance)?;
    let inputs = [(of_y, &gradient[0]), (of_x, &gradient[1]), (of_ids, &experts)];
    let operation = Operation::ExpertWeightGrad { experts: EXPERTS };
    let dims: &[usize] = &[EXPERTS, OUTPUTS, INPUTS];
    agrees_with_cpu(gpu, &operation, &inputs, &[(dims, &gradient[3])], 2.0 * tolerance)
}
