use half::bf16;
use proptest::prelude::*;

use super::*;
use crate::graph::IGNORE_TARGET;
use crate::kernels::Out;
use crate::kernels::pack::{Pack, PackSpec};
use crate::kernels::testing::{Matrix, assert_close, run};

pub(super) fn pack<E: Element>(weight: &Matrix) -> Vec<E> {
    let (outputs, inputs) = (weight.rows, weight.columns);
    let mut packed = vec![E::narrow(f32::NAN); packed_len::<E>(outputs, inputs)];
    run(&Pack::new(weight.span(), Out::of(&mut packed), PackSpec { outputs, inputs }).unwrap());
    packed
}

#[derive(Default)]
struct Reference {
    loss: Vec<f64>,
    log_sum_exp: Vec<f64>,
    hidden_gradient: Vec<f64>,
    weight_gradient: Vec<f64>,
}

impl Reference {
    fn new(
        [hidden, weight]: [&Matrix; 2],
        targets: &[u32],
        loss_gradient: &[f32],
        soft_cap: Option<Scalar>,
    ) -> Self {
        let (width, vocab) = (hidden.columns, weight.rows);
        let logits = hidden.times(&weight.transposed());
        let mut all = Self { weight_gradient: vec![0.0; vocab * width], ..Self::default() };
        for (token, &target) in targets.iter().enumerate() {
            let start = all.hidden_gradient.len();
            all.hidden_gradient.resize(start + width, 0.0);
            if target == IGNORE_TARGET {
                all.loss.push(0.0);
                all.log_sum_exp.push(0.0);
                continue;
            }
            let cap = |logit: &f64| soft_cap.map_or(*logit, |cap| cap.0 * (logit / cap.0).tanh());
            let slope = |capped: f64| soft_cap.map_or(1.0, |cap| 1.0 - (capped / cap.0).powi(2));
            let logits: Vec<f64> = logits[token * vocab..][..vocab].iter().map(cap).collect();
            let log_sum_exp = logits.iter().map(|logit| logit.exp()).sum::<f64>().ln();
            all.loss.push(log_sum_exp - logits[target as usize]);
            all.log_sum_exp.push(log_sum_exp);
            for (word, logit) in logits.iter().enumerate() {
                let one_hot = f64::from(u8::from(word == target as usize));
                let of_capped = f64::from(loss_gradient[token]) * ((logit - log_sum_exp).exp() - one_hot);
                let gradient = of_capped * slope(*logit);
                for i in 0..width {
                    all.hidden_gradient[start + i] += gradient * f64::from(weight.values[word * width + i]);
                    all.weight_gradient[word * width + i] +=
                        gradient * f64::from(hidden.values[token * width + i]);
                }
            }
        }
        all
    }
}

fn check(tokens: usize, width: usize, vocab: usize, supervised: f32, seed: u64) {
    let draws = Matrix::random(tokens, 2, seed + 3).values;
    let target = |draw: &[f32]| ((draw[0] + 1.0) / 2.0 * vocab as f32) as u32 % vocab as u32;
    let keep = |draw: &[f32]| if draw[1] < 2.0 * supervised - 1.0 { target(draw) } else { IGNORE_TARGET };
    let targets: Vec<u32> = draws.chunks(2).map(keep).collect();
    for soft_cap in [None, Some(Scalar(2.5))] {
        check_as::<f32>(width, vocab, &targets, soft_cap, seed);
        check_as::<bf16>(width, vocab, &targets, soft_cap, seed);
    }
}

fn check_as<E: Element>(width: usize, vocab: usize, targets: &[u32], soft_cap: Option<Scalar>, seed: u64) {
    let tokens = targets.len();
    let mut hidden = Matrix::random(tokens, width, seed);
    let mut weight = Matrix::random(vocab, width, seed + 1);
    let stored = hidden.rounded::<E>();
    weight.rounded::<E>();
    let loss_gradient = Matrix::random(tokens, 1, seed + 2).values;
    let expected = Reference::new([&hidden, &weight], targets, &loss_gradient, soft_cap);
    let packed = pack::<E>(&weight);
    for isa in Isa::available() {
        let what = format!("{isa:?} {} bytes {tokens} x {width} -> {vocab}", size_of::<E>());
        let what = format!("{what} {soft_cap:?}");
        let spec = CrossEntropySpec { tokens, width, vocab, soft_cap, isa };
        let inputs =
            CrossEntropyInputs { hidden: In::of(&stored), packed: In::of(&packed), targets: In::of(targets) };
        let mut loss = vec![f32::NAN; tokens];
        run(&ProjectedCrossEntropy::new(inputs, Out::of(&mut loss), spec).unwrap());
        assert_close(&loss, &expected.loss, width + vocab, &what);

        let mut loss = vec![f32::NAN; tokens];
        let mut log_sum_exp = vec![f32::NAN; tokens];
        let mut hidden_gradient = vec![E::narrow(f32::NAN); tokens * width];
        let outputs = CrossEntropyGradOutputs {
            loss: Out::of(&mut loss),
            log_sum_exp: Out::of(&mut log_sum_exp),
            hidden_gradient: Out::of(&mut hidden_gradient),
        };
        let dloss = In::of(&loss_gradient);
        run(&ProjectedCrossEntropyGrad::new(inputs, dloss, outputs, spec).unwrap());
        assert_close(&loss, &expected.loss, width + vocab, &what);
        assert_close(&log_sum_exp, &expected.log_sum_exp, width + vocab, &what);
        assert_close(&hidden_gradient, &expected.hidden_gradient, width + vocab, &what);

        let mut weight_gradient = vec![E::narrow(f32::NAN); vocab * width];
        let (log_sum_exp, output) = (In::of(&log_sum_exp), Out::of(&mut weight_gradient));
        run(&ProjectedCrossEntropyWeightGrad::new(inputs, dloss, log_sum_exp, output, spec).unwrap());
        assert_close(&weight_gradient, &expected.weight_gradient, width + tokens, &what);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn agrees_with_f64_on_ragged_shapes(
        (tokens, width, vocab) in (1usize..70, 1usize..70, 1usize..90),
        supervised in 0f32..1.2,
        seed in any::<u32>(),
    ) {
        check(tokens, width, vocab, supervised, u64::from(seed));
    }
}

#[test]
fn agrees_with_f64_over_several_chunks_and_blocks() {
    check(150, 20, 300, 2.0, 1);
    check(400, 33, 40, 0.3, 2);
    check(60, 9, 3500, 0.5, 3);
    check(130, 64, 64, 0.0, 4);
}

#[test]
fn large_logits_neither_overflow_nor_lose_the_loss() {
    let hidden = Matrix { rows: 1, columns: 1, values: vec![1.0] };
    let weight = Matrix { rows: 3, columns: 1, values: vec![500.0, 490.0, -1e30] };
    let packed = pack::<f32>(&weight);
    let inputs = CrossEntropyInputs { hidden: hidden.span(), packed: In::of(&packed), targets: In::of(&[1]) };
    let mut loss = [f32::NAN];
    let spec = CrossEntropySpec { tokens: 1, width: 1, vocab: 3, soft_cap: None, isa: Isa::detect() };
    run(&ProjectedCrossEntropy::new(inputs, Out::of(&mut loss), spec).unwrap());
    assert!((loss[0] - 10.000_045).abs() < 1e-5, "{loss:?}");
}

#[test]
fn wrong_lengths_are_refused() {
    let values = [0.0f32; 64];
    let inputs = CrossEntropyInputs {
        hidden: In::of(&values[..2]),
        packed: In::of(&values),
        targets: In::of(&[0, 0]),
    };
    let mut loss = [0.0; 2];
    let spec = CrossEntropySpec { tokens: 2, width: 2, vocab: 3, soft_cap: None, isa: Isa::Portable };
    assert!(ProjectedCrossEntropy::new(inputs, Out::of(&mut loss), spec).is_err());
}
