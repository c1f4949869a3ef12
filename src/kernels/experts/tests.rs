use half::bf16;

use super::*;
use crate::graph::RouteSide;
use crate::kernels::number::Float;
use crate::kernels::testing::{noise, run};
use crate::kernels::{In, Out};

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
    let ids = experts_of_rows();
    for [inner, out] in [[5, 7], [33, 70], [1024, 16], [16, 600], [700, 40]] {
        for transpose in [false, true] {
            let x = noise(ids.len() * inner, 1);
            let weight = noise(EXPERTS * inner * out, 2);
            let expected = product(&x, &weight, &ids, [inner, out], transpose);
            let mut y = vec![f32::NAN; ids.len() * out];
            let operands = [In::of(&x), In::of(&weight)];
            run(&ExpertLinear::new(operands, In::of(&ids), Out::of(&mut y), [inner, out], transpose).unwrap());
            close(&y, &expected, 2e-5);

            let [x, weight] = [x, weight].map(|v| v.into_iter().map(bf16::from_f32).collect::<Vec<_>>());
            let widen = |v: &[bf16]| v.iter().map(|v| v.to_f32()).collect::<Vec<_>>();
            let expected = product(&widen(&x), &widen(&weight), &ids, [inner, out], transpose);
            let mut y = vec![bf16::NAN; ids.len() * out];
            let operands = [In::of(&x), In::of(&weight)];
            run(&ExpertLinear::new(operands, In::of(&ids), Out::of(&mut y), [inner, out], transpose).unwrap());
            close(&widen(&y), &expected, 1e-2);
        }
    }
}

#[test]
fn weights_gather_the_gradients_of_their_rows() {
    let ids = experts_of_rows();
    for [out, inner] in [[5, 7], [70, 33], [16, 600], [600, 16], [40, 700]] {
        let (dy, x) = (noise(ids.len() * out, 3), noise(ids.len() * inner, 4));
        let mut expected = vec![0.0; EXPERTS * out * inner];
        for (row, &expert) in ids.iter().enumerate() {
            for (o, i) in (0..out).flat_map(|o| (0..inner).map(move |i| (o, i))) {
                expected[(expert as usize * out + o) * inner + i] +=
                    f64::from(dy[row * out + o]) * f64::from(x[row * inner + i]);
            }
        }
        let mut found = vec![f32::NAN; expected.len()];
        let operands = [In::of(&dy), In::of(&x)];
        run(&ExpertWeightGrad::new(operands, In::of(&ids), Out::of(&mut found), [out, inner]).unwrap());
        close(&found, &expected, 2e-5);
        assert!(found[out * inner..2 * out * inner].iter().all(|&value| value == 0.0));

        let narrow = |v: &[f32]| v.iter().map(|&v| bf16::narrow(v)).collect::<Vec<_>>();
        let (dy, x) = (narrow(&dy), narrow(&x));
        let mut found = vec![bf16::NAN; expected.len()];
        let operands = [In::of(&dy), In::of(&x)];
        run(&ExpertWeightGrad::new(operands, In::of(&ids), Out::of(&mut found), [out, inner]).unwrap());
        close(&found.iter().map(|v| v.to_f32()).collect::<Vec<_>>(), &expected, 1e-2);
    }
}

#[test]
fn an_expert_that_is_not_there_gives_zeros() {
    let (x, weight, ids) = ([1.0_f32, 2.0], [3.0_f32], [0, 9]);
    let mut y = [f32::NAN; 2];
    let operands = [In::of(&x), In::of(&weight)];
    run(&ExpertLinear::new(operands, In::of(&ids), Out::of(&mut y), [1, 1], false).unwrap());
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
    for (experts, chosen) in [(1, 1), (5, 2), (8, 8), (37, 6)] {
        let scores = noise(50 * experts, 5);
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
