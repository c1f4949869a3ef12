//! Output projection and cross-entropy.

use lazytune::graph::{IGNORE_TARGET, Operation, Scalar};
use lazytune::kernels::metal::CrossEntropyNumbers;
use lazytune::kernels::metal::launch::{self, Launch};

use super::{Outcome, agrees_with_cpu, close, noise};
use crate::gpu::{Buffer, Gpu, activations, floats, no_floats, nothing};

struct Case {
    hidden: Vec<f32>,
    weight: Vec<f32>,
    targets: Vec<u32>,
    dloss: Vec<f32>,
    spec: CrossEntropyNumbers,
}

#[derive(Default)]
struct Reference {
    loss: Vec<f64>,
    log_sum_exp: Vec<f64>,
    dhidden: Vec<f64>,
    dweight: Vec<f64>,
}

fn capped(logit: f64, cap: f64) -> [f64; 2] {
    if cap == 0.0 {
        return [logit, 1.0];
    }
    let ratio = (logit / cap).tanh();
    [cap * ratio, 1.0 - ratio * ratio]
}

impl Case {
    fn reference(&self) -> Reference {
        let (width, vocab) = (self.spec.width as usize, self.spec.vocab as usize);
        let n = self.targets.len();
        let mut all = Reference {
            loss: vec![0.0; n],
            log_sum_exp: vec![0.0; n],
            dhidden: vec![0.0; n * width],
            dweight: vec![0.0; vocab * width],
        };
        for (token, &target) in self.targets.iter().enumerate() {
            if target as usize >= vocab {
                continue;
            }
            let hidden = &self.hidden[token * width..][..width];
            let logits: Vec<[f64; 2]> = self
                .weight
                .chunks(width)
                .map(|row| row.iter().zip(hidden).map(|(w, h)| f64::from(*w) * f64::from(*h)).sum())
                .map(|logit| capped(logit, f64::from(self.spec.soft_cap)))
                .collect();
            let largest = logits.iter().fold(f64::MIN, |largest, logit| largest.max(logit[0]));
            let sum = logits.iter().map(|logit| (logit[0] - largest).exp()).sum::<f64>();
            all.log_sum_exp[token] = largest + sum.ln();
            all.loss[token] = all.log_sum_exp[token] - logits[target as usize][0];
            for (word, [logit, slope]) in logits.into_iter().enumerate() {
                let hit = if word == target as usize { 1.0 } else { 0.0 };
                let probability = (logit - all.log_sum_exp[token]).exp();
                let gradient = f64::from(self.dloss[token]) * (probability - hit) * slope;
                for (i, state) in hidden.iter().enumerate() {
                    all.dhidden[token * width + i] += gradient * f64::from(self.weight[word * width + i]);
                    all.dweight[word * width + i] += gradient * f64::from(*state);
                }
            }
        }
        all
    }

    fn targets(&self) -> Buffer {
        Buffer::U32(self.targets.clone())
    }

    fn inputs(&self) -> [Buffer; 3] {
        [activations(&self.hidden), activations(&self.weight), self.targets()]
    }

    fn logits(&self, gpu: &Gpu, spec: CrossEntropyNumbers) -> Result<Buffer, String> {
        let [hidden, weight, targets] = self.inputs();
        let mut buffers = [hidden, weight, targets, no_floats((spec.tokens * spec.words) as usize)];
        gpu.run(&launch::project_logits(spec), &mut buffers)?;
        Ok(buffers[3].clone())
    }

    /// Loss, log-sum-exp, and what becomes of the logits.
    fn losses(&self, gpu: &Gpu, gradient: u32) -> Result<[Buffer; 3], String> {
        let (spec, n) = (CrossEntropyNumbers { gradient, ..self.spec }, self.targets.len());
        let logits = self.logits(gpu, spec)?;
        let mut buffers = [logits, self.targets(), floats(&self.dloss), no_floats(n), no_floats(n)];
        let launch = Launch { threads: [96, 1, 1], ..launch::cross_entropy(spec) };
        gpu.run(&launch, &mut buffers)?;
        let [logits, _, _, loss, log_sum_exp] = buffers;
        Ok([loss, log_sum_exp, logits])
    }

    fn dhidden(&self, gpu: &Gpu, gradients: Buffer) -> Result<Buffer, String> {
        let [_, weight, targets] = self.inputs();
        let mut buffers = [gradients, weight, targets, nothing(self.hidden.len())];
        gpu.run(&launch::cross_entropy_hidden_gradient(self.spec), &mut buffers)?;
        Ok(buffers[3].clone())
    }

    /// In blocks of the vocabulary.
    fn dweight(&self, gpu: &Gpu, log_sum_exp: &Buffer, block: u32) -> Result<Buffer, String> {
        let [hidden, _, targets] = self.inputs();
        let mut dweight = nothing(self.weight.len());
        for first_word in (0..self.spec.vocab).step_by(block as usize) {
            let words = block.min(self.spec.vocab - first_word);
            let spec = CrossEntropyNumbers { words, first_word, ..self.spec };
            let logits = self.logits(gpu, spec)?;
            let mut gradients = [logits, targets.clone(), floats(&self.dloss), log_sum_exp.clone()];
            gpu.run(&launch::cross_entropy_word_gradients(spec), &mut gradients)?;
            let mut buffers = [gradients[0].clone(), hidden.clone(), targets.clone(), dweight];
            gpu.run(&launch::cross_entropy_weight_gradient(spec), &mut buffers)?;
            dweight = buffers[3].clone();
        }
        Ok(dweight)
    }
}

/// Tokens 2, and those from 64 to 127 or to the end, are not learned: one within a tile, and tiles as a whole.
fn case(gpu: &Gpu, [tokens, width, vocab]: [usize; 3], soft_cap: f32) -> Case {
    let target = |token: usize| match token {
        2 | 64..128 => IGNORE_TARGET,
        _ => (token * 7 % vocab) as u32,
    };
    Case {
        hidden: gpu.round(noise(tokens * width, 1).iter().map(|x| 2.0 * x).collect()),
        weight: gpu.round(noise(vocab * width, 2)),
        targets: (0..tokens).map(target).collect(),
        dloss: noise(tokens, 3),
        spec: CrossEntropyNumbers {
            tokens: tokens as u32,
            width: width as u32,
            vocab: vocab as u32,
            words: vocab as u32,
            first_word: 0,
            gradient: 0,
            soft_cap,
        },
    }
}

pub fn check(gpu: &Gpu) -> Outcome {
    check_case(gpu, &case(gpu, [69, 20, 131], 0.0), 131)?;
    check_case(gpu, &case(gpu, [18, 35, 77], 3.0), 50)?;
    check_case(gpu, &case(gpu, [150, 17, 65], 0.0), 40)
}

fn check_case(gpu: &Gpu, case: &Case, block: u32) -> Outcome {
    let expected = case.reference();
    let [loss, log_sum_exp, gradients] = case.losses(gpu, 1)?;
    let [plain, plain_log_sum_exp, _] = case.losses(gpu, 0)?;
    if plain != loss || plain_log_sum_exp != log_sum_exp {
        return Err("the loss depends on whether there is a gradient".into());
    }
    close("loss", loss.floats(), &expected.loss, 2e-6)?;
    close("log-sum-exp", log_sum_exp.floats(), &expected.log_sum_exp, 2e-6)?;
    let dhidden = case.dhidden(gpu, gradients)?;
    close("dhidden", dhidden.floats(), &expected.dhidden, gpu.tolerance(3e-6))?;
    let dweight = case.dweight(gpu, &log_sum_exp, block)?;
    close("dweight", dweight.floats(), &expected.dweight, gpu.tolerance(3e-6))?;

    let soft_cap = (case.spec.soft_cap > 0.0).then(|| Scalar(f64::from(case.spec.soft_cap)));
    let (tokens, width) = (case.spec.tokens as usize, case.spec.width as usize);
    let (wide, table): (&[usize], &[usize]) = (&[tokens, width], &[case.spec.vocab as usize, width]);
    let (narrow, dloss): (&[usize], _) = (&[tokens], floats(&case.dloss));
    let [hidden, weight, targets] = case.inputs();
    let inputs = [(wide, &hidden), (table, &weight), (narrow, &targets), (narrow, &dloss)];
    // The CPU rounds probabilities to bf16 where activations are.
    let tolerance = 2.0 * gpu.tolerance(3e-6);
    let forward = Operation::ProjectedCrossEntropy { soft_cap };
    agrees_with_cpu(gpu, &forward, &inputs[..3], &[(narrow, &loss)], 1e-5)?;
    let backward = Operation::ProjectedCrossEntropyGrad { soft_cap };
    let outputs = [(narrow, &loss), (narrow, &log_sum_exp), (wide, &dhidden)];
    agrees_with_cpu(gpu, &backward, &inputs, &outputs, tolerance)?;
    let of_weight = Operation::ProjectedCrossEntropyWeightGrad { soft_cap };
    let inputs = [inputs[0], inputs[1], inputs[2], inputs[3], (narrow, &log_sum_exp)];
    agrees_with_cpu(gpu, &of_weight, &inputs, &[(table, &dweight)], tolerance)
}
