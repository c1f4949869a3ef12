use half::bf16;

use super::tests::pack;
use super::*;
use crate::graph::IGNORE_TARGET;
use crate::kernels::linear::peak;
use crate::kernels::testing::{Matrix, seconds};
use crate::kernels::{Kernel, Out};

fn measure<E: Element>(name: &str, tokens: usize, every: usize) {
    let (width, vocab) = (576, 49152);
    let hidden = Matrix::random(tokens, width, 1).rounded::<E>();
    let packed = pack::<E>(&Matrix::random(vocab, width, 2));
    let dloss = vec![1.0 / tokens as f32; tokens];
    let isa = Isa::detect();
    let spec = CrossEntropySpec { tokens, width, vocab, soft_cap: None, isa };
    let (mut loss, mut log_sum_exp) = (vec![0.0; tokens], vec![0.0; tokens]);
    let mut hidden_gradient = vec![E::narrow(0.0); tokens * width];
    let target = |token: usize| if token.is_multiple_of(every) { token as u32 } else { IGNORE_TARGET };
    let targets: Vec<u32> = (0..tokens).map(target).collect();
    let inputs =
        CrossEntropyInputs { hidden: In::of(&hidden), packed: In::of(&packed), targets: In::of(&targets) };
    let forward = ProjectedCrossEntropy::new(inputs, Out::of(&mut loss), spec).unwrap();
    let outputs = CrossEntropyGradOutputs {
        loss: Out::of(&mut loss),
        log_sum_exp: Out::of(&mut log_sum_exp),
        hidden_gradient: Out::of(&mut hidden_gradient),
    };
    let gradient = ProjectedCrossEntropyGrad::new(inputs, In::of(&dloss), outputs, spec).unwrap();
    let product = 2.0 * (tokens.div_ceil(every) * width * vocab) as f64;
    let kernels: [(&str, &dyn Kernel, f64); 2] = [("loss", &forward, 1.0), ("gradient", &gradient, 2.0)];
    for (kernel_name, kernel, products) in kernels {
        for threads in [1, 2] {
            let time = seconds(kernel, threads, 1);
            let rate = products * product / time;
            println!(
                "{name} {kernel_name}, 1 of {every} of {tokens} tokens, {threads} threads: {time:.3} s, {:.1} GFLOP/s, {:.0}%",
                rate * 1e-9,
                100.0 * rate / peak::<E>(isa, threads)
            );
        }
    }
}

#[test]
#[ignore = "measures speed"]
fn speed_of_cross_entropy() {
    for (tokens, every) in [(2048, 1), (2048, 5), (256, 1)] {
        measure::<f32>("f32 ", tokens, every);
        measure::<bf16>("bf16", tokens, every);
    }
}
