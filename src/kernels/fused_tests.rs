//! The elementwise and row-wise fused kernels against their formulas in f64.

use half::bf16;
use proptest::prelude::*;

use super::adamw::{AdamW, AdamWStates, AdamWStep};
use super::gated::{Gate, Gated, GatedGrad, GeluTanh, Silu, SwiGlu, SwiGluGrad};
use super::number::Element;
use super::plain::{Affine, Binary, Cast};
use super::rms_norm::{RmsNorm, RmsNormGrad, RmsNormGradInputs};
use super::rope::Rope;
use super::sum_of_squares::SumOfSquares;
use super::testing::{cases, noise, outputs, relative_error, report, run, widen};
use super::{In, Kernel, Out};
use crate::graph::{AdamWSpec, Scalar};

proptest! {
    #![proptest_config(cases(40))]

    #[test]
    fn rms_norm_and_its_gradient(n in 1usize..90, d in 1usize..700, seed in 0u64..1000) {
        let (x, weight, dy) = (noise(n * d, seed), noise(d, seed + 1), noise(n * d, seed + 2));
        let (mut y, mut dx, mut dweight) = (vec![0.0; n * d], vec![0.0; n * d], vec![0.0; d]);
        let (wide_x, wide_w, wide_dy) = (widen(&x), widen(&weight), widen(&dy));
        for row in 0..n {
            let x = &wide_x[row * d..(row + 1) * d];
            let dy = &wide_dy[row * d..(row + 1) * d];
            let r = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / d as f64 + 1e-5).sqrt();
            let mean = (0..d).map(|i| dy[i] * wide_w[i] * x[i] * r).sum::<f64>() / d as f64;
            for i in 0..d {
                y[row * d + i] = x[i] * r * wide_w[i];
                dx[row * d + i] = r * (dy[i] * wide_w[i] - x[i] * r * mean);
                dweight[i] += dy[i] * x[i] * r;
            }
        }
        let [actual] = outputs([n * d], |[y]| {
            Box::new(RmsNorm::new(1e-5, In::of(&x), In::of(&weight), y).unwrap())
        });
        prop_assert!(relative_error(&actual, &y) < 1e-6);
        let inputs =
            RmsNormGradInputs { x: In::of(&x), weight: In::of(&weight), dy: In::of(&dy), residual: None };
        let [actual_dx, actual_dw] = outputs([n * d, d], |[dx, dw]| {
            Box::new(RmsNormGrad::new(1e-5, inputs, dx, Some(dw)).unwrap())
        });
        // With one column dx cancels to epsilon's share: measured against what it is the difference of.
        let scale = dx.iter().fold(1.0f64, |m, x| m.max(x.abs()));
        let error = actual_dx.iter().zip(&dx).fold(0.0f64, |m, (a, e)| m.max((f64::from(*a) - e).abs()));
        prop_assert!(error / scale < 1e-3, "{}", error / scale);
        prop_assert!(d < 8 || relative_error(&actual_dx, &dx) < 5e-6);
        prop_assert!(relative_error(&actual_dw, &dweight) < 5e-6);
        let [without] = outputs([n * d], |[dx]| {
            Box::new(RmsNormGrad::new(1e-5, inputs, dx, None).unwrap())
        });
        prop_assert_eq!(&without, &actual_dx);
        let added = RmsNormGradInputs { residual: Some(In::of(&dy)), ..inputs };
        let [with_residual] = outputs([n * d], |[dx]| {
            Box::new(RmsNormGrad::new(1e-5, added, dx, None).unwrap())
        });
        let sums: Vec<f32> = without.iter().zip(&dy).map(|(dx, residual)| dx + residual).collect();
        prop_assert_eq!(with_residual, sums);
    }

    #[test]
    fn rope_rotates_pairs_and_back(n in 1usize..80, heads in 1usize..5, half in 1usize..40) {
        let width = heads * 2 * half;
        let (x, angles) = (noise(n * width, 1), noise(n * half, 2));
        let cos: Vec<f32> = angles.iter().map(|a| a.cos()).collect();
        let sin: Vec<f32> = angles.iter().map(|a| a.sin()).collect();
        let rotate = |x: &[f32], inverse| {
            let [y] = outputs([n * width], |[y]| {
                let table = [In::of(&cos), In::of(&sin)];
                Box::new(Rope::new([width, 2 * half], inverse, In::of(x), table, y).unwrap())
            });
            y
        };
        let y = rotate(&x, false);
        for (row, head, i) in (0..n).flat_map(|r| (0..heads).flat_map(move |h| (0..half).map(move |i| (r, h, i)))) {
            let (at, angle) = (row * width + head * 2 * half + i, f64::from(angles[row * half + i]));
            let (a, b) = (f64::from(x[at]), f64::from(x[at + half]));
            prop_assert!((f64::from(y[at]) - (a * angle.cos() - b * angle.sin())).abs() < 1e-6);
            prop_assert!((f64::from(y[at + half]) - (b * angle.cos() + a * angle.sin())).abs() < 1e-6);
        }
        prop_assert!(relative_error(&rotate(&y, true), &widen(&x)) < 1e-6);
    }
}

/// `function` gives f(x) and f'(x).
fn check_gated<G: Gate>(function: impl Fn(f64) -> [f64; 2]) {
    let n = 50_003;
    let gate: Vec<f32> = noise(n, 1).iter().map(|x| x * 12.0).collect();
    let (up, dy) = (noise(n, 2), noise(n, 3));
    let wide = |i: usize| (f64::from(gate[i]), f64::from(up[i]), f64::from(dy[i]));
    let (mut y, mut dgate, mut dup) = (vec![], vec![], vec![]);
    for (g, u, d) in (0..n).map(wide) {
        let [value, slope] = function(g);
        y.push(value * u);
        dgate.push(d * u * slope);
        dup.push(d * value);
    }
    let [actual] = outputs([n], |[y]| Box::new(Gated::<_, G>::new(In::of(&gate), In::of(&up), y).unwrap()));
    assert!(relative_error(&actual, &y) < 5e-7);
    let [actual_dgate, actual_dup] = outputs([n, n], |[dgate, dup]| {
        let (gate, up, dy) = (In::of(&gate), In::of(&up), In::of(&dy));
        Box::new(GatedGrad::<_, G>::new(gate, up, dy, dgate, dup).unwrap())
    });
    assert!(relative_error(&actual_dgate, &dgate) < 1e-6);
    assert!(relative_error(&actual_dup, &dup) < 5e-7);
}

#[test]
fn gated_units_and_their_gradients() {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    check_gated::<Silu>(|x| [x * sigmoid(x), sigmoid(x) * (1.0 + x * (1.0 - sigmoid(x)))]);
    check_gated::<GeluTanh>(|x| {
        let factor = (2.0 / std::f64::consts::PI).sqrt();
        let tanh = (factor * (x + 0.044_715 * x.powi(3))).tanh();
        let inner = factor * (1.0 + 3.0 * 0.044_715 * x * x);
        [0.5 * x * (1.0 + tanh), 0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * inner]
    });
}

#[test]
fn sum_of_squares_spans_tensors() {
    let tensors = [noise(1000, 1), noise(0, 2), noise(37, 3)];
    let expected: f64 = tensors.iter().flatten().map(|&x| f64::from(x).powi(2)).sum();
    let [total] = outputs([1], |[total]| {
        Box::new(SumOfSquares::new(tensors.iter().map(|x| In::of(x)).collect(), total).unwrap())
    });
    assert!(relative_error(&total, &[expected]) < 1e-7);
}

const SPEC: AdamWSpec =
    AdamWSpec { beta1: Scalar(0.9), beta2: Scalar(0.999), epsilon: Scalar(1e-8), weight_decay: Scalar(0.01) };

#[test]
fn adamw_follows_the_published_update() {
    let n = 40_000;
    let mut p = noise(n, 1);
    let (mut m, mut v) = (vec![0.0; n], vec![0.0; n]);
    let mut wide: Vec<[f64; 3]> = p.iter().map(|&p| [f64::from(p), 0.0, 0.0]).collect();
    for step in 1..=5 {
        let gradient = noise(n, 10 + step);
        let (rate, number, factor) = ([1e-2f32], [step as f32], [0.5f32]);
        let states = AdamWStates {
            parameter: Out::of(&mut p),
            first_moment: Out::of(&mut m),
            second_moment: Out::of(&mut v),
        };
        let numbers = AdamWStep {
            learning_rate: In::of(&rate),
            number: In::of(&number),
            gradient_factor: In::of(&factor),
        };
        run(&AdamW::new(SPEC, states, In::of(&gradient), numbers).unwrap());
        for ([p, m, v], g) in wide.iter_mut().zip(&gradient) {
            let (g, rate) = (f64::from(*g) * 0.5, f64::from(1e-2f32));
            *m = 0.9 * *m + 0.1 * g;
            *v = 0.999 * *v + 0.001 * g * g;
            let (first, second) =
                (*m / (1.0 - 0.9f64.powi(step as i32)), *v / (1.0 - 0.999f64.powi(step as i32)));
            *p -= rate * 0.01 * *p + rate * first / (second.sqrt() + 1e-8);
        }
    }
    let column = |i: usize| wide.iter().map(|state| state[i]).collect::<Vec<_>>();
    assert!(relative_error(&p, &column(0)) < 1e-6);
    assert!(relative_error(&m, &column(1)) < 1e-6);
    assert!(relative_error(&v, &column(2)) < 1e-6);
}

/// Three steps of torch.optim.AdamW (2.15, CPU), as bits.
#[test]
fn adamw_gives_the_bits_of_pytorch() {
    let expected: [[u32; 8]; 3] = [
        [
            0xbef5_af68,
            0x3d67_c011,
            0xbeb2_7714,
            0x3e80_a455,
            0xbe57_0b14,
            0x3ec3_dbfd,
            0xbca6_90ef,
            0xbef0_0a08,
        ],
        [
            0xbd0e_b852,
            0x3d80_1893,
            0xbcf6_45a2,
            0xbc60_0000,
            0x3dab_74bd,
            0xbc11_a9fb,
            0x3bf5_c290,
            0x3ba0_418e,
        ],
        [
            0x38f7_de81,
            0x3954_6cdb,
            0x39d4_577c,
            0x3894_3dd5,
            0x39a9_8995,
            0x39c8_23e3,
            0x387a_ac9e,
            0x39ca_e41b,
        ],
    ];
    let sixty_fourths = |f: fn(i32, i32) -> i32, t| (0..8).map(|i| f(i, t) as f32 / 64.0).collect::<Vec<_>>();
    let mut p = sixty_fourths(|i, _| i * 37 % 64 - 32, 0);
    let (mut m, mut v) = (vec![0.0f32; 8], vec![0.0f32; 8]);
    for t in 1..=3 {
        let gradient = sixty_fourths(|i, t| (i * 23 + t * 11) % 64 - 31, t);
        let states = AdamWStates {
            parameter: Out::of(&mut p),
            first_moment: Out::of(&mut m),
            second_moment: Out::of(&mut v),
        };
        let (rate, number) = ([1.0 / 128.0], [t as f32]);
        let numbers = AdamWStep {
            learning_rate: In::of(&rate),
            number: In::of(&number),
            gradient_factor: In::of(&[1.0]),
        };
        run(&AdamW::new(SPEC, states, In::of(&gradient), numbers).unwrap());
    }
    for (actual, expected) in [p, m, v].iter().zip(expected) {
        for (a, e) in actual.iter().zip(expected) {
            assert!(a.to_bits() == e, "{a} is not {}", f32::from_bits(e));
        }
    }
}

/// GB/s read and written for SmolLM2-135M at 4 x 512 tokens.
#[test]
#[ignore = "measures"]
fn speed() {
    speed_of("f32", |x| x);
    speed_of("bf16", bf16::from_f32);
    let n = 2048 * 1536;
    let (gradient, one) = (noise(n, 1), [1.0f32]);
    let (mut p, mut m, mut v) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
    let states = AdamWStates {
        parameter: Out::of(&mut p),
        first_moment: Out::of(&mut m),
        second_moment: Out::of(&mut v),
    };
    let step = AdamWStep { learning_rate: In::of(&one), number: In::of(&one), gradient_factor: In::of(&one) };
    let adamw = AdamW::new(SPEC, states, In::of(&gradient), step).unwrap();
    report("adamw", &adamw, 28.0 * n as f64, "GB/s");
    let mut narrow = vec![bf16::ZERO; n];
    let cast = Cast::new(In::of(&gradient), Out::of(&mut narrow)).unwrap();
    report("cast to bf16", &cast, 6.0 * n as f64, "GB/s");
    let cast = Cast::new(In::of(&narrow), Out::of(&mut p)).unwrap();
    report("cast to f32", &cast, 6.0 * n as f64, "GB/s");
}

fn speed_of<E: Element>(element: &str, convert: impl Fn(f32) -> E + Copy) {
    let (n, d, f) = (2048, 576, 1536);
    let random = |n, seed| noise(n, seed).into_iter().map(convert).collect::<Vec<E>>();
    let (x, dy, weight) = (random(n * d, 1), random(n * d, 2), random(d, 3));
    let (gate, up, dh) = (random(n * f, 4), random(n * f, 5), random(n * f, 6));
    let table = noise(n * 32, 7);
    let (mut y, mut h, mut h2) = (random(n * d, 8), random(n * f, 9), random(n * f, 10));
    let (mut dw, mut total) = (random(d, 11), [0.0]);
    let (token_bytes, hidden_bytes) = ((n * d * size_of::<E>()) as f64, (n * f * size_of::<E>()) as f64);
    let report =
        |name: &str, kernel: &dyn Kernel, bytes| report(&format!("{name} {element}"), kernel, bytes, "GB/s");
    let norm = RmsNorm::new(1e-5, In::of(&x), In::of(&weight), Out::of(&mut y)).unwrap();
    report("rms_norm", &norm, 2.0 * token_bytes);
    for dw in [None, Some(Out::of(&mut dw))] {
        let name = if dw.is_some() { "rms_norm_grad with dweight" } else { "rms_norm_grad" };
        let (x, weight, dy) = (In::of(&x), In::of(&weight), In::of(&dy));
        let inputs = RmsNormGradInputs { x, weight, dy, residual: None };
        let norm = RmsNormGrad::new(1e-5, inputs, Out::of(&mut y), dw).unwrap();
        report(name, &norm, 3.0 * token_bytes);
    }
    let tables = [In::of(&table), In::of(&table)];
    let rope = Rope::new([d, 64], false, In::of(&x), tables, Out::of(&mut y)).unwrap();
    report("rope", &rope, 2.0 * token_bytes);
    let swiglu = SwiGlu::new(In::of(&gate), In::of(&up), Out::of(&mut h)).unwrap();
    report("swiglu", &swiglu, 3.0 * hidden_bytes);
    let (gate, up, dh) = (In::of(&gate), In::of(&up), In::of(&dh));
    let grad = SwiGluGrad::new(gate, up, dh, Out::of(&mut h), Out::of(&mut h2)).unwrap();
    report("swiglu_grad", &grad, 5.0 * hidden_bytes);
    let squares = SumOfSquares::new(vec![gate], Out::of(&mut total)).unwrap();
    report("sum_of_squares", &squares, hidden_bytes);
    let (a, b) = (In::of(&x), In::of(&dy));
    let sum = Binary::new(crate::graph::Binary::Add, a, b, Out::of(&mut y)).unwrap();
    report("add", &sum, 3.0 * token_bytes);
    let affine = Affine::new(2.0, 1.0, a, Out::of(&mut y)).unwrap();
    report("affine", &affine, 2.0 * token_bytes);
}
