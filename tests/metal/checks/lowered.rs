//! What operations are lowered to, run step by step and compared with the CPU's kernels.

use lazytune::graph::{
    AdamWSpec, AttentionSpec, DType, IGNORE_TARGET, LowRank, Operation, Scalar, Shape, TensorType,
};
use lazytune::kernels::metal::Element;
use lazytune::kernels::metal::lower::{Applied, Lowering, has_kernel, lower, lower_together};

use super::lowered_plain::{experts, plain, products, together};
use super::{Outcome, agrees_with_cpu, can_compile, noise, tensor_type};
use crate::gpu::{Buffer, Gpu, activations, decode, encode, floats, no_floats, nothing};
use crate::memory::Memory;

/// A tensor with its shape.
type Shaped = (Vec<usize>, Buffer);

/// An operation with its operands.
struct Sample {
    operation: Operation,
    inputs: Vec<Shaped>,
    outputs: Vec<Shaped>,
}

fn run(gpu: &Gpu, lowering: &Lowering, sample: &mut Sample) -> Outcome {
    let bytes = |all: &[Shaped]| all.iter().map(|(_, buffer)| encode(gpu.element, buffer)).collect();
    let mut memory = Memory::new(lowering, bytes(&sample.inputs), bytes(&sample.outputs));
    memory.run(gpu, lowering)?;
    if sample.operation.updates_state() {
        memory.outputs = vec![memory.inputs[0].clone()];
    }
    for ((_, buffer), bytes) in sample.outputs.iter_mut().zip(&memory.outputs) {
        decode(gpu.element, buffer, bytes);
    }
    Ok(())
}

fn check(gpu: &Gpu, mut sample: Sample, tolerance: f64) -> Outcome {
    assert!(has_kernel(&sample.operation));
    let [inputs, outputs] = [&sample.inputs, &sample.outputs].map(|all| types(gpu, all));
    let lowering = lower(&sample.operation, &inputs, &outputs).unwrap();
    run(gpu, &lowering, &mut sample)?;
    against_cpu(gpu, &sample, tolerance)
}

fn against_cpu(gpu: &Gpu, sample: &Sample, tolerance: f64) -> Outcome {
    let [inputs, outputs] = [&sample.inputs, &sample.outputs]
        .map(|all| all.iter().map(|(dims, buffer)| (&dims[..], buffer)).collect::<Vec<_>>());
    agrees_with_cpu(gpu, &sample.operation, &inputs, &outputs, tolerance)
        .map_err(|problem| format!("{:?}: {problem}", sample.operation))
}

fn types(gpu: &Gpu, all: &[Shaped]) -> Vec<TensorType> {
    all.iter().map(|(dims, buffer)| tensor_type(gpu.element, dims, buffer).unwrap()).collect()
}

/// Several operations in shared launches, against the CPU's kernels.
pub(super) fn check_together(gpu: &Gpu, all: Vec<Operands<'_>>) -> Outcome {
    let typed: Vec<[Vec<TensorType>; 2]> =
        all.iter().map(|one| [&one.sample.inputs, &one.sample.outputs].map(|all| types(gpu, all))).collect();
    let applied: Vec<Applied<'_>> = all
        .iter()
        .zip(&typed)
        .map(|(one, [inputs, outputs])| Applied { operation: &one.sample.operation, inputs, outputs })
        .collect();
    let lowering = lower_together(&applied).unwrap().expect("they share launches");
    let bytes = |side: fn(&Sample) -> &Vec<Shaped>| -> Vec<Vec<u8>> {
        all.iter().flat_map(|one| side(&one.sample)).map(|(_, buffer)| encode(gpu.element, buffer)).collect()
    };
    let mut memory = Memory::new(&lowering, bytes(|sample| &sample.inputs), bytes(|sample| &sample.outputs));
    memory.run(gpu, &lowering)?;
    for (one, bytes) in all.into_iter().zip(&memory.outputs) {
        let mut sample = one.sample;
        decode(gpu.element, &mut sample.outputs[0].1, bytes);
        against_cpu(gpu, &sample, one.tolerance)?;
    }
    Ok(())
}

/// Makes operands for one type of activations, each with another seed.
pub(super) struct Operands<'a> {
    gpu: &'a Gpu,
    sample: Sample,
    /// What results may differ by.
    tolerance: f64,
}

impl<'a> Operands<'a> {
    pub(super) fn of(gpu: &'a Gpu, operation: Operation) -> Self {
        // Kernels of the CPU round some factors to bf16 where activations are; sums of products are rounded on the way.
        let tolerance = 4.0 * gpu.tolerance(5e-6);
        Self { gpu, sample: Sample { operation, inputs: vec![], outputs: vec![] }, tolerance }
    }

    fn random(&self, dims: &[usize]) -> Vec<f32> {
        noise(dims.iter().product(), 1 + self.sample.inputs.len() as u64)
    }

    pub(super) fn input(mut self, dims: &[usize]) -> Self {
        let values = self.gpu.round(self.random(dims));
        self.sample.inputs.push((dims.to_vec(), activations(&values)));
        self
    }

    pub(super) fn wide_input(mut self, dims: &[usize]) -> Self {
        let values = self.random(dims).iter().map(|x| x.abs()).collect::<Vec<_>>();
        self.sample.inputs.push((dims.to_vec(), floats(&values)));
        self
    }

    pub(super) fn ids(mut self, ids: Vec<u32>) -> Self {
        self.sample.inputs.push((vec![ids.len()], Buffer::U32(ids)));
        self
    }

    pub(super) fn output(mut self, dims: &[usize]) -> Self {
        self.sample.outputs.push((dims.to_vec(), nothing(dims.iter().product())));
        self
    }

    pub(super) fn id_output(mut self, n: usize) -> Self {
        self.sample.outputs.push((vec![n], Buffer::U32(vec![u32::MAX; n])));
        self
    }

    pub(super) fn wide_output(mut self, dims: &[usize]) -> Self {
        self.sample.outputs.push((dims.to_vec(), no_floats(dims.iter().product())));
        self
    }

    /// Of the same bits as the CPU's.
    pub(super) fn exactly(self) -> Outcome {
        Self { tolerance: 0.0, ..self }.check()
    }

    pub(super) fn check(self) -> Outcome {
        check(self.gpu, self.sample, self.tolerance)
    }
}

fn rows(gpu: &Gpu) -> Outcome {
    let (n, d) = (5, 96);
    let epsilon = Scalar(1e-5);
    Operands::of(gpu, Operation::RmsNorm { epsilon }).input(&[n, d]).input(&[d]).output(&[n, d]).check()?;
    for weight_gradient in [false, true] {
        let operation = Operation::RmsNormGrad { epsilon, weight_gradient, residual: false };
        let operands = Operands::of(gpu, operation).input(&[n, d]).input(&[d]).input(&[n, d]).output(&[n, d]);
        (if weight_gradient { operands.output(&[d]) } else { operands }).check()?;
    }
    let operation = Operation::Rope { head_dim: 32, inverse: true };
    let operands = Operands::of(gpu, operation).input(&[n, d]);
    operands.wide_input(&[n, 16]).wide_input(&[n, 16]).output(&[n, d]).check()?;
    Operands::of(gpu, Operation::AddBias).input(&[n, d]).input(&[d]).output(&[n, d]).check()?;
    for operation in [Operation::SwiGlu, Operation::GeGlu] {
        Operands::of(gpu, operation).input(&[n, d]).input(&[n, d]).output(&[n, d]).check()?;
    }
    for operation in [Operation::SwiGluGrad, Operation::GeGluGrad] {
        let operands = Operands::of(gpu, operation).input(&[n, d]).input(&[n, d]).input(&[n, d]);
        operands.output(&[n, d]).output(&[n, d]).check()?;
    }
    let ids = vec![3, IGNORE_TARGET, 0];
    Operands::of(gpu, Operation::Embedding).input(&[7, d]).ids(ids).output(&[3, d]).check()
}

fn attention(gpu: &Gpu) -> Outcome {
    let spec = AttentionSpec {
        batch: 2,
        seq: 35,
        heads: 4,
        kv_heads: 2,
        head_dim: 20,
        scale: Scalar(0.3),
        window: Some(30),
        soft_cap: Some(Scalar(4.0)),
    };
    let n = spec.batch * spec.seq;
    let (wide, narrow) = (&[n, 80][..], &[n, 40][..]);
    let segments: Vec<u32> = (0..n as u32).map(|token| token % 35 / 20).collect();
    let operands = |operation| {
        Operands::of(gpu, operation).input(wide).input(narrow).input(narrow).ids(segments.clone())
    };
    let mut forward = operands(Operation::Attention(spec)).output(wide).wide_output(&[n, 4]).sample;
    let types = types(gpu, &forward.inputs);
    run(gpu, &lower(&forward.operation, &types, &[]).unwrap(), &mut forward)?;
    let mut backward = operands(Operation::AttentionGrad(spec));
    backward.sample.inputs.extend(forward.outputs);
    backward.input(wide).output(wide).output(narrow).output(narrow).check()?;
    operands(Operation::Attention(spec)).output(wide).wide_output(&[n, 4]).check()
}

fn linear(gpu: &Gpu) -> Outcome {
    let (n, inputs, outputs, rank) = (9, 40, 33, 6);
    for (transpose_weight, transpose, residual) in [(false, false, true), (true, true, false)] {
        let low_rank = Some(LowRank { scale: Scalar(0.5), transpose });
        let operation = Operation::Linear { transpose_weight, low_rank, residual };
        let weight = if transpose_weight { [inputs, outputs] } else { [outputs, inputs] };
        let v = if transpose { [rank, outputs] } else { [outputs, rank] };
        let operands =
            Operands::of(gpu, operation).input(&[n, inputs]).input(&weight).input(&[n, rank]).input(&v);
        let operands = if residual { operands.input(&[n, outputs]) } else { operands };
        operands.output(&[n, outputs]).check()?;
    }
    let plain = Operation::Linear { transpose_weight: false, low_rank: None, residual: false };
    Operands::of(gpu, plain).input(&[n, inputs]).input(&[outputs, inputs]).output(&[n, outputs]).check()
}

fn cross_entropy(gpu: &Gpu) -> Outcome {
    let (n, d, vocab) = (70, 24, 90);
    let targets: Vec<u32> = (0..n).map(|i| if i % 3 == 0 { IGNORE_TARGET } else { i * 5 % 90 }).collect();
    let n = n as usize;
    let soft_cap = Some(Scalar(5.0));
    let operands =
        |operation| Operands::of(gpu, operation).input(&[n, d]).input(&[vocab, d]).ids(targets.clone());
    operands(Operation::ProjectedCrossEntropy { soft_cap }).wide_output(&[n]).check()?;
    let operation = Operation::ProjectedCrossEntropyGrad { soft_cap };
    let gradient = operands(operation).wide_input(&[n]).wide_output(&[n]).wide_output(&[n]).output(&[n, d]);
    let mut sample = gradient.sample;
    let [inputs, outputs] = [&sample.inputs, &sample.outputs].map(|all| types(gpu, all));
    let lowering = lower(&sample.operation, &inputs, &outputs).unwrap();
    run(gpu, &lowering, &mut sample)?;
    let log_sum_exp = sample.outputs[1].clone();
    check(gpu, sample, gradient.tolerance)?;
    let operation = Operation::ProjectedCrossEntropyWeightGrad { soft_cap };
    let mut of_weight = operands(operation).wide_input(&[n]);
    of_weight.sample.inputs.push(log_sum_exp);
    of_weight.output(&[vocab, d]).check()
}

fn optimizer(gpu: &Gpu) -> Outcome {
    let squares = Operands::of(gpu, Operation::SumOfSquares).input(&[70, 90]).input(&[5]).input(&[3, 4]);
    squares.wide_output(&[1]).check()?;
    if gpu.element != Element::F32 {
        return Ok(());
    }
    let (beta1, beta2) = (Scalar(0.9), Scalar(0.99));
    let spec = AdamWSpec { beta1, beta2, epsilon: Scalar(1e-8), weight_decay: Scalar(0.1) };
    let mut adamw = Operands::of(gpu, Operation::AdamW(spec));
    for dims in [[70, 90]; 4] {
        adamw = adamw.wide_input(&dims);
    }
    adamw.wide_input(&[1]).wide_input(&[1]).wide_input(&[1]).wide_output(&[70, 90]).check()
}

#[test]
fn operations_are_lowered_to_what_the_cpu_computes() {
    if !can_compile() {
        return;
    }
    for element in [Element::F32, Element::Bf16] {
        let gpu = Gpu::new(element, 64);
        for group in [rows, attention, linear, cross_entropy, optimizer, plain, products, together, experts] {
            group(&gpu).unwrap_or_else(|problem| panic!("{element:?}: {problem}"));
        }
    }
}

#[test]
fn what_has_no_kernel_is_refused() {
    let tensor = TensorType::new(Shape::new(&[2, 2]).unwrap(), DType::F32);
    let operation = Operation::Detach;
    assert!(!has_kernel(&operation));
    assert!(lower(&operation, &[tensor], &[tensor]).is_err());
}
