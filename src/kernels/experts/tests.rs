use half::bf16;

use super::*;
use crate::graph::RouteSide;
use crate::kernels::number::Float;
use crate::kernels::{In, Kernel, Out};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

fn values(random: &mut ChaCha8Rng, count: usize) -> Vec<f32> {
    (0..count).map(|_| (random.next_u32() >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

fn input<T>(values: &[T]) -> In<T> {
    // SAFETY: the tests keep the values alive and do not write them while kernels run.
    unsafe { In::new(values.as_ptr(), values.len()) }
}

fn output<T>(values: &mut [T]) -> Out<T> {
    // SAFETY: as above; only the kernel touches them while it runs.
    unsafe { Out::new(values.as_mut_ptr(), values.len()) }
}

/// Runs the parts last to first, with scratch memory that holds garbage.
fn run(kernel: &dyn Kernel) {
    let words = kernel.scratch_bytes().div_ceil(64) + 1;
    let mut scratch = vec![[0x7f_u8; 64]; words];
    let start = scratch.as_ptr().align_offset(64);
    let bytes = scratch.as_flattened_mut();
    (0..kernel.parts()).rev().for_each(|part| kernel.run(part, &mut bytes[start..]));
}

/// Experts with no rows, one row, and more than a block of rows.
fn experts_of_rows() -> Vec<u32> {
    [(0, 3), (2, 1), (3, 90), (6, 17)].into_iter().flat_map(|(expert, rows)| vec![expert; rows]).collect()
}

const EXPERTS: usize = 8;

fn close(found: &[f32], expected: &[f64], tolerance: f64) {
    let scale = expected.iter().fold(1.0_f64, |scale, value| scale.max(value.abs()));
    for (found, expected) in found.iter().zip(expected) {
        assert!((f64::from(*found) - expected).abs() <= tolerance * scale, "{found} {expected}");
    }
}

fn product(x: &[f32], weight: &[f32], ids: &[u32], [inner, out]: [usize; 2], transpose: bool) -> Vec<f64> {
    let mut y = vec![0.0; ids.len() * out];
    for (row, &expert) in ids.iter().enumerate() {
        for column in 0..out {
            for k in 0..inner {
                let at = if transpose { k * out + column } else { column * inner + k };
                let w = weight[expert as usize * inner * out + at];
                y[row * out + column] += f64::from(x[row * inner + k]) * f64::from(w);
            }
        }
    }
    y
}

#[test]
fn rows_go_through_the_matrix_of_their_expert() {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let ids = experts_of_rows();
    for [inner, out] in [[5, 7], [33, 70], [1024, 16], [16, 600], [700, 40]] {
        for transpose in [false, true] {
            let x = values(&mut random, ids.len() * inner);
            let weight = values(&mut random, EXPERTS * inner * out);
            let expected = product(&x, &weight, &ids, [inner, out], transpose);
            let mut y = vec![f32::NAN; ids.len() * out];
            let operands = [input(&x), input(&weight)];
            run(&ExpertLinear::new(operands, input(&ids), output(&mut y), [inner, out], transpose).unwrap());
            close(&y, &expected, 2e-5);

            let [x, weight] = [x, weight].map(|v| v.into_iter().map(bf16::from_f32).collect::<Vec<_>>());
            let widen = |v: &[bf16]| v.iter().map(|v| v.to_f32()).collect::<Vec<_>>();
            let expected = product(&widen(&x), &widen(&weight), &ids, [inner, out], transpose);
            let mut y = vec![bf16::NAN; ids.len() * out];
            let operands = [input(&x), input(&weight)];
            run(&ExpertLinear::new(operands, input(&ids), output(&mut y), [inner, out], transpose).unwrap());
            close(&widen(&y), &expected, 1e-2);
        }
    }
}

#[test]
fn weights_gather_the_gradients_of_their_rows() {
    let mut random = ChaCha8Rng::seed_from_u64(2);
    let ids = experts_of_rows();
    for [out, inner] in [[5, 7], [70, 33], [16, 600], [600, 16], [40, 700]] {
        let (dy, x) = (values(&mut random, ids.len() * out), values(&mut random, ids.len() * inner));
        let mut expected = vec![0.0; EXPERTS * out * inner];
        for (row, &expert) in ids.iter().enumerate() {
            for (o, i) in (0..out).flat_map(|o| (0..inner).map(move |i| (o, i))) {
                expected[(expert as usize * out + o) * inner + i] +=
                    f64::from(dy[row * out + o]) * f64::from(x[row * inner + i]);
            }
        }
        let mut found = vec![f32::NAN; expected.len()];
        let operands = [input(&dy), input(&x)];
        run(&ExpertWeightGrad::new(operands, input(&ids), output(&mut found), [out, inner]).unwrap());
        close(&found, &expected, 2e-5);
        assert!(found[out * inner..2 * out * inner].iter().all(|&value| value == 0.0));

        let narrow = |v: &[f32]| v.iter().map(|&v| bf16::narrow(v)).collect::<Vec<_>>();
        let (dy, x) = (narrow(&dy), narrow(&x));
        let mut found = vec![bf16::NAN; expected.len()];
        let operands = [input(&dy), input(&x)];
        run(&ExpertWeightGrad::new(operands, input(&ids), output(&mut found), [out, inner]).unwrap());
        close(&found.iter().map(|v| v.to_f32()).collect::<Vec<_>>(), &expected, 1e-2);
    }
}

#[test]
fn an_expert_that_is_not_there_gives_zeros() {
    let (x, weight, ids) = ([1.0_f32, 2.0], [3.0_f32], [0, 9]);
    let mut y = [f32::NAN; 2];
    let operands = [input(&x), input(&weight)];
    run(&ExpertLinear::new(operands, input(&ids), output(&mut y), [1, 1], false).unwrap());
    assert_eq!(y, [3.0, 0.0]);
}

fn routed(scores: &[f32], experts: usize, chosen: usize) -> Vec<(u32, u32)> {
    let [tokens, ids] = [RouteSide::Tokens, RouteSide::Experts].map(|side| {
        let mut y = vec![u32::MAX; scores.len() / experts * chosen];
        routes(scores, &RouteSpec { experts, chosen, side }, &mut y);
        y
    });
    ids.into_iter().zip(tokens).collect()
}

#[test]
fn the_highest_scores_are_chosen_and_sorted_by_expert() {
    let mut random = ChaCha8Rng::seed_from_u64(3);
    for (experts, chosen) in [(1, 1), (5, 2), (8, 8), (37, 6)] {
        let scores = values(&mut random, 50 * experts);
        let mut expected = Vec::new();
        for (token, row) in scores.chunks(experts).enumerate() {
            let mut order: Vec<usize> = (0..experts).collect();
            order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
            expected.extend(order[..chosen].iter().map(|&expert| (expert as u32, token as u32)));
        }
        expected.sort_unstable();
        assert_eq!(routed(&scores, experts, chosen), expected);
    }
}

#[test]
fn ties_go_to_the_first_expert_and_nan_to_the_last() {
    assert_eq!(routed(&[0.5, 0.5, 0.5], 3, 2), [(0, 0), (1, 0)]);
    assert_eq!(routed(&[f32::NAN, 0.0, -1.0], 3, 2), [(1, 0), (2, 0)]);
    assert_eq!(routed(&[f32::NAN; 3], 3, 2), [(0, 0), (1, 0)]);
    assert_eq!(routed(&[f32::NEG_INFINITY, f32::NAN, f32::INFINITY], 3, 2), [(0, 0), (2, 0)]);
}
