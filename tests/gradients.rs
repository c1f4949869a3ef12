//! Finite differences over every operation: the derivative that `autodiff` builds is the derivative of what runs.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;

use lazytune::autodiff::gradients;
use lazytune::executor::{HostTensor, StepInputs};
use lazytune::graph::{
    AttentionSpec, Binary, ComputationGraph, DType, LazyTensor, LowRank, MAX_RANK, Operation, Reduction,
    Scalar, Shape, TensorType, Unary,
};
use support::{Random, compute, executor, relative_error, two_threads};

/// An operation with the inputs it is tried on.
struct Sample {
    operation: Operation,
    inputs: Vec<Input>,
    /// The output that is differentiated.
    output: usize,
}

#[derive(Clone)]
enum Input {
    /// Uniform in -1..1, differentiated.
    Any(Vec<usize>),
    /// Uniform in 0.5..1.5, differentiated.
    Positive(Vec<usize>),
    /// Not differentiated.
    Ids(Vec<u32>),
    /// Cosines or sines: not differentiated.
    Angles(Vec<usize>),
}

use Input::{Angles, Any, Ids, Positive};

const IGNORE: u32 = u32::MAX;

fn shape(dims: &[usize]) -> Shape {
    Shape::new(dims).unwrap()
}

fn attention() -> AttentionSpec {
    AttentionSpec {
        batch: 2,
        seq: 5,
        heads: 4,
        kv_heads: 2,
        head_dim: 3,
        scale: Scalar(0.7),
        window: None,
        soft_cap: None,
    }
}

fn linear(transpose_weight: bool, low_rank: Option<LowRank>, residual: bool) -> Operation {
    Operation::Linear { transpose_weight, low_rank, residual }
}

/// Samples of an operation; empty where it has no derivative by design. No wildcard: a new operation must say.
fn samples(operation: &Operation) -> Vec<Sample> {
    use Operation as Op;
    let one = |operation: Operation, inputs: Vec<Input>| vec![Sample { operation, inputs, output: 0 }];
    match operation {
        Op::Input(_) | Op::Frozen(_) | Op::State(_) | Op::Constant(_) | Op::RopeTable(_) => vec![],
        Op::AttentionMask { .. } | Op::CacheMask { .. } | Op::DropoutMask { .. } | Op::Route { .. } => vec![],
        Op::RmsNormGrad { .. }
        | Op::AttentionGrad(_)
        | Op::CachedAttention(_)
        | Op::SwiGluGrad
        | Op::GeGluGrad
        | Op::LinearGatedGrad { .. }
        | Op::ExpertWeightGrad { .. } => vec![],
        Op::ProjectedCrossEntropyGrad { .. } | Op::ProjectedCrossEntropyWeightGrad { .. } => vec![],
        Op::AdamW(_) | Op::Assign | Op::WriteRows | Op::Pack | Op::PackedEmbedding | Op::Output(_) => {
            vec![]
        }
        Op::Unary(Unary::Log | Unary::Sqrt | Unary::Reciprocal) => {
            one(operation.clone(), vec![Positive(vec![3, 4])])
        }
        Op::Unary(_) | Op::Affine { .. } => one(operation.clone(), vec![Any(vec![3, 4])]),
        Op::Binary(Binary::Equal) | Op::Detach => vec![],
        Op::Binary(_) => one(operation.clone(), vec![Any(vec![3, 4]), Positive(vec![3, 4])]),
        Op::Cast(_) => one(operation.clone(), vec![Any(vec![5])]),
        Op::Reshape(_) => one(Op::Reshape(shape(&[2, 6])), vec![Any(vec![3, 4])]),
        Op::BroadcastTo(_) => one(Op::BroadcastTo(shape(&[3, 4, 2])), vec![Any(vec![3, 1, 2])]),
        Op::Permute(_) => one(Op::Permute([2, 0, 1, 0, 0]), vec![Any(vec![2, 3, 4])]),
        Op::Slice { .. } => [(0, 1), (1, 2), (2, 1)]
            .into_iter()
            .flat_map(|(start, length)| one(Op::Slice { axis: 1, start, length }, vec![Any(vec![2, 4])]))
            .collect(),
        Op::Concat { .. } => {
            one(Op::Concat { axis: 1 }, vec![Any(vec![2, 3]), Any(vec![2, 1]), Any(vec![2, 2])])
        }
        Op::Reduce { reduction, .. } => {
            one(Op::Reduce { reduction: *reduction, axis: 1 }, vec![Any(vec![2, 5, 3])])
        }
        Op::MatMul { .. } => [(false, false), (false, true), (true, false), (true, true)]
            .into_iter()
            .flat_map(|(transpose_left, transpose_right)| {
                let left = if transpose_left { vec![2, 4, 3] } else { vec![2, 3, 4] };
                let right = if transpose_right { vec![2, 5, 4] } else { vec![2, 4, 5] };
                one(Op::MatMul { transpose_left, transpose_right, widen: false }, vec![Any(left), Any(right)])
            })
            .collect(),
        Op::Embedding => one(Op::Embedding, vec![Any(vec![4, 3]), Ids(vec![1, 3, 1, IGNORE])]),
        Op::ScatterRows { .. } => {
            one(Op::ScatterRows { rows: 4 }, vec![Ids(vec![1, 3, 1, IGNORE]), Any(vec![4, 3])])
        }
        Op::TakeLast => one(Op::TakeLast, vec![Any(vec![3, 4]), Ids(vec![2, IGNORE, 0])]),
        Op::ScatterLast { .. } => {
            one(Op::ScatterLast { size: 4 }, vec![Any(vec![3, 1]), Ids(vec![2, IGNORE, 0])])
        }
        Op::RmsNorm { .. } => one(Op::RmsNorm { epsilon: Scalar(1e-3) }, vec![Any(vec![3, 5]), Any(vec![5])]),
        Op::Rope { .. } => [false, true]
            .into_iter()
            .flat_map(|inverse| {
                let inputs = vec![Any(vec![3, 8]), Angles(vec![3, 2]), Angles(vec![3, 2])];
                one(Op::Rope { head_dim: 4, inverse }, inputs)
            })
            .collect(),
        Op::Attention(_) => {
            let segments = Ids(vec![0, 0, 0, 1, 1, 0, 1, 1, 1, IGNORE]);
            let inputs = vec![Any(vec![10, 12]), Any(vec![10, 6]), Any(vec![10, 6]), segments];
            one(operation.clone(), inputs)
        }
        Op::AddBias => one(Op::AddBias, vec![Any(vec![3, 4]), Any(vec![4])]),
        Op::SwiGlu | Op::GeGlu => one(operation.clone(), vec![Any(vec![3, 4]), Any(vec![3, 4])]),
        Op::Linear { .. } => linear_samples(),
        // The second expert has no rows.
        Op::ExpertLinear { transpose_weight } => {
            let weight = if *transpose_weight { vec![3, 4, 5] } else { vec![3, 5, 4] };
            one(operation.clone(), vec![Any(vec![6, 4]), Any(weight), Ids(vec![0, 0, 2, 2, 2, 2])])
        }
        Op::ProjectedCrossEntropy { .. } => {
            let inputs = vec![Any(vec![4, 3]), Any(vec![7, 3]), Ids(vec![6, IGNORE, 0, 2])];
            one(operation.clone(), inputs)
        }
        Op::SumOfSquares => one(Op::SumOfSquares, vec![Any(vec![3, 4]), Any(vec![5]), Any(vec![2, 2])]),
    }
}

fn linear_samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    for (transpose_weight, transpose, residual) in
        [(false, false, true), (true, true, false), (false, true, true)]
    {
        let weight = if transpose_weight { vec![4, 5] } else { vec![5, 4] };
        let v = if transpose { vec![2, 5] } else { vec![5, 2] };
        let low_rank = Some(LowRank { scale: Scalar(1.5), transpose });
        let mut inputs = vec![Any(vec![3, 4]), Any(weight), Any(vec![3, 2]), Any(v)];
        if residual {
            inputs.push(Any(vec![3, 5]));
        }
        samples.push(Sample { operation: linear(transpose_weight, low_rank, residual), inputs, output: 0 });
    }
    samples.push(Sample {
        operation: linear(false, None, false),
        inputs: vec![Any(vec![3, 4]), Any(vec![5, 4])],
        output: 0,
    });
    samples
}

/// One of every variant. `samples` decides what is tried; the count at the end of the test pins the coverage.
fn every_operation() -> Vec<Operation> {
    use Operation as Op;
    let mut all = vec![
        Op::Affine { multiply: Scalar(1.5), add: Scalar(0.5) },
        Op::Cast(DType::F64),
        Op::Reshape(shape(&[1])),
        Op::BroadcastTo(shape(&[1])),
        Op::Permute([0; MAX_RANK]),
        Op::Slice { axis: 0, start: 0, length: 1 },
        Op::Concat { axis: 0 },
        Op::Reduce { reduction: Reduction::Sum, axis: 0 },
        Op::Reduce { reduction: Reduction::Max, axis: 0 },
        Op::MatMul { transpose_left: false, transpose_right: false, widen: false },
        Op::Embedding,
        Op::ScatterRows { rows: 1 },
        Op::TakeLast,
        Op::ScatterLast { size: 1 },
        Op::RmsNorm { epsilon: Scalar(1e-3) },
        Op::Rope { head_dim: 4, inverse: false },
        Op::Attention(attention()),
        Op::Attention(AttentionSpec { window: Some(2), ..attention() }),
        Op::Attention(AttentionSpec { soft_cap: Some(Scalar(0.6)), ..attention() }),
        Op::Attention(AttentionSpec { window: Some(3), soft_cap: Some(Scalar(1.5)), ..attention() }),
        Op::AddBias,
        Op::SwiGlu,
        Op::GeGlu,
        linear(false, None, false),
        Op::ExpertLinear { transpose_weight: false },
        Op::ExpertLinear { transpose_weight: true },
        Op::ProjectedCrossEntropy { soft_cap: None },
        Op::ProjectedCrossEntropy { soft_cap: Some(Scalar(0.8)) },
        Op::SumOfSquares,
    ];
    let unary = [
        Unary::Negate,
        Unary::Exp,
        Unary::Log,
        Unary::Sqrt,
        Unary::Reciprocal,
        Unary::Sigmoid,
        Unary::Tanh,
        Unary::Sin,
        Unary::Cos,
    ];
    let binary = [Binary::Add, Binary::Subtract, Binary::Multiply, Binary::Divide, Binary::Minimum];
    all.extend(unary.map(Op::Unary));
    all.extend(binary.map(Op::Binary));
    all
}

/// The sample's loss (a random weighting of its output), its differentiable inputs, and values for everything.
struct Case {
    loss: LazyTensor,
    variables: Vec<LazyTensor>,
    values: StepInputs,
}

fn case(sample: &Sample, dtype: DType, random: &mut Random) -> Case {
    let graph = ComputationGraph::new();
    let (mut handles, mut variables, mut values) = (Vec::new(), Vec::new(), StepInputs::new());
    for (slot, input) in sample.inputs.iter().enumerate() {
        let name = format!("input{slot}");
        let (dims, kind, value) = match input {
            Ids(ids) => (vec![ids.len()], DType::U32, HostTensor::u32(&[ids.len()], ids.clone()).unwrap()),
            Any(dims) | Positive(dims) | Angles(dims) => {
                let value = random.tensor(TensorType::new(shape(dims), DType::F64));
                let shift = if matches!(input, Positive(_)) { 0.5 } else { 1.0 };
                let moved =
                    value.to_f64().iter().map(|v| if shift < 1.0 { 1.0 + shift * v } else { *v }).collect();
                (dims.clone(), dtype, HostTensor::f64(dims, moved).unwrap().to_dtype(dtype))
            }
        };
        let handle = graph.input(&name, &dims, kind);
        if matches!(input, Any(_) | Positive(_)) {
            variables.push(handle.clone());
        }
        handles.push(handle);
        values.insert(name, value);
    }
    let handles: Vec<&LazyTensor> = handles.iter().collect();
    let y = graph.apply(sample.operation.clone(), &handles);
    let y = if y.output_count() > 1 { y.output(sample.output) } else { y };
    let weighting = random.tensor(TensorType::new(y.shape(), y.dtype()));
    let weights = graph.input("weighting", y.dims(), y.dtype());
    values.insert("weighting".into(), weighting);
    Case { loss: y.times(&weights).sum_all(), variables, values }
}

/// Central differences of the loss with respect to every element of every variable.
fn differences(case: &Case, sample: &Sample) -> BTreeMap<String, Vec<f64>> {
    const STEP: f64 = 1e-5;
    let executor = executor(two_threads());
    let at = |values: &StepInputs| {
        compute(&executor, std::slice::from_ref(&case.loss), values, true)[0].to_f64()[0]
    };
    let mut all = BTreeMap::new();
    for (slot, input) in sample.inputs.iter().enumerate() {
        if !matches!(input, Any(_) | Positive(_)) {
            continue;
        }
        let name = format!("input{slot}");
        let base = case.values[&name].clone();
        let moved = |element: usize, step: f64| {
            let mut numbers = base.to_f64();
            numbers[element] += step;
            let mut values = case.values.clone();
            values.insert(name.clone(), HostTensor::f64(base.tensor.shape.dims(), numbers).unwrap());
            at(&values)
        };
        let slopes =
            (0..base.to_f64().len()).map(|e| (moved(e, STEP) - moved(e, -STEP)) / (2.0 * STEP)).collect();
        all.insert(name, slopes);
    }
    all
}

/// The plain form's derivatives in f64 equal finite differences; the fused kernels' forward values and derivatives in
/// f32 equal the plain form's in f64.
#[test]
fn every_derivative_is_the_derivative() {
    let mut random = Random::new(1);
    let mut tried = 0;
    for sample in every_operation().iter().flat_map(samples) {
        let exact = case(&sample, DType::F64, &mut random);
        let expected: Vec<f64> = differences(&exact, &sample).into_values().flatten().collect();
        let found = derivatives(&exact, true);
        let error = relative_error(&found, &expected, 1e-3);
        assert!(error < 1e-7, "{:?}: relative error {error:e} against finite differences", sample.operation);

        let mut single = case(&sample, DType::F32, &mut random);
        for (name, value) in &mut single.values {
            *value = exact.values[name].to_dtype(value.tensor.dtype);
        }
        let executor = executor(two_threads());
        let losses = [&single, &exact].map(|case| {
            compute(
                &executor,
                std::slice::from_ref(&case.loss),
                &case.values,
                case.loss.dtype() == DType::F64,
            )[0]
            .to_f64()
        });
        let error = relative_error(&losses[0], &losses[1], 1e-1);
        assert!(error < 1e-5, "{:?}: forward error {error:e} in f32", sample.operation);
        let error = relative_error(&derivatives(&single, false), &expected, 1e-2);
        assert!(error < 1e-5, "{:?}: derivative error {error:e} in f32", sample.operation);
        tried += 1;
    }
    assert_eq!(tried, 52, "samples were lost or added: adjust the count on purpose");
}

fn derivatives(case: &Case, plain: bool) -> Vec<f64> {
    let executor = executor(two_threads());
    let loss = if plain {
        let frozen = case.loss.graph().freeze(std::slice::from_ref(&case.loss)).unwrap();
        lazytune::passes::decompose(&frozen, &|_| true).unwrap().thaw().remove(0)
    } else {
        case.loss.clone()
    };
    let variables: Vec<LazyTensor> = case
        .variables
        .iter()
        .map(|variable| {
            let (operation, _) = variable.definition().unwrap();
            loss.graph().leaf(operation, variable.dims(), variable.dtype())
        })
        .collect();
    let gradients = gradients(&loss, &variables).unwrap();
    compute(&executor, &gradients, &case.values, plain).iter().flat_map(HostTensor::to_f64).collect()
}
