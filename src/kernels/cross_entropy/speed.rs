use super::tests::pack;
use super::*;
use crate::graph::IGNORE_TARGET;
use crate::kernels::testing::{Matrix, seconds};
use crate::kernels::{Kernel, Out};

#[test]
#[ignore = "measures speed"]
fn speed_of_cross_entropy() {
    let (tokens, width, vocab) = (2048, 576, 49152);
    let hidden = Matrix::random(tokens, width, 1);
    let weight = Matrix::random(vocab, width, 2);
    let (packed, transposed) = (pack(&weight, false), pack(&weight, true));
    let dloss = vec![1.0 / tokens as f32; tokens];
    let spec = CrossEntropySpec { tokens, width, vocab, isa: Isa::detect() };
    let (mut loss, mut log_sum_exp) = (vec![0.0; tokens], vec![0.0; tokens]);
    let (mut hidden_gradient, mut weight_gradient) = (vec![0.0; tokens * width], vec![0.0; vocab * width]);
    for every in [1, 5] {
        let target = |token: usize| if token.is_multiple_of(every) { token as u32 } else { IGNORE_TARGET };
        let targets: Vec<u32> = (0..tokens).map(target).collect();
        let inputs =
            CrossEntropyInputs { hidden: hidden.span(), packed: In::of(&packed), targets: In::of(&targets) };
        let forward = ProjectedCrossEntropy::new(inputs, Out::of(&mut loss), spec).unwrap();
        let outputs = CrossEntropyGradOutputs {
            loss: Out::of(&mut loss),
            log_sum_exp: Out::of(&mut log_sum_exp),
            hidden_gradient: Out::of(&mut hidden_gradient),
        };
        let gradient =
            ProjectedCrossEntropyGrad::new(inputs, In::of(&transposed), In::of(&dloss), outputs, spec)
                .unwrap();
        let out = Out::of(&mut weight_gradient);
        let weight_gradient =
            ProjectedCrossEntropyWeightGrad::new(inputs, In::of(&dloss), In::of(&log_sum_exp), out, spec)
                .unwrap();
        let product = 2.0 * (tokens.div_ceil(every) * width * vocab) as f64;
        let kernels: [(&str, &dyn Kernel, f64); 3] = [
            ("loss", &forward, 1.0),
            ("gradient", &gradient, 2.0),
            ("weight gradient", &weight_gradient, 2.0),
        ];
        for (name, kernel, products) in kernels {
            for threads in [1, 2] {
                let time = seconds(kernel, threads, 1);
                let rate = products * product / time * 1e-9;
                println!("{name}, one token in {every}, {threads} threads: {time:.3} s, {rate:.1} GFLOP/s");
            }
        }
    }
}
