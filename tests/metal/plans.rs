//! What the plans of training steps hold: every operation has a kernel, in each way to train and in both types.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use lazytune::executor::metal::MetalTarget;
use lazytune::graph::{DType, Operation, TensorType};
use lazytune::kernels::metal::lower::{has_kernel, lower};
use lazytune::model::Trained;
use lazytune::optim::AdamW;
use lazytune::plan::{Plan, Target};
use lazytune::train::model::OpenModel;
use lazytune::train::{NamedTensors, StepBuilder, StepKind};

const KINDS: [StepKind; 5] =
    [StepKind::Only, StepKind::First, StepKind::Middle, StepKind::Last, StepKind::Evaluate];

/// Adapters of every kind and family, and one model of which every weight is trained.
pub fn cases() -> Vec<PathBuf> {
    let folders = std::fs::read_dir("tests/goldens").unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<PathBuf> = folders.filter(|path| path.join("base").is_dir()).collect();
    cases.sort();
    assert!(cases.len() > 20);
    cases
}

/// The model of a case, what is trained, and the values of that.
pub fn opened(case: &Path, dropout: f64) -> (OpenModel, Trained, NamedTensors) {
    let model = OpenModel::named(case.join("base").to_str().unwrap(), None).unwrap();
    let adapter = case.join("adapter");
    if !adapter.is_dir() {
        let values = model.all_weights().unwrap();
        return (model, Trained::All, values);
    }
    let model = model.with_tokens_of(&adapter).unwrap();
    let (mut trained, values) = model.adapter(&adapter).unwrap();
    if let Trained::Adapters(adaptation) = &mut trained {
        adaptation.pairs.values_mut().for_each(|pair| pair.dropout = dropout);
    }
    (model, trained, values)
}

/// The plans of all parts of a step.
pub fn plans(case: &Path, dropout: f64, dtype: DType, target: &dyn Target) -> Vec<Plan> {
    let (model, trained, _) = opened(case, dropout);
    let builder = StepBuilder {
        decoder: model.decoder,
        trained,
        dtype,
        optimizer: AdamW { betas: (0.9, 0.999), epsilon: 1e-8, weight_decay: 0.01, max_grad_norm: 1.0 },
        max_positions: 16,
        memory_budget: None,
    };
    KINDS.into_iter().map(|kind| builder.compile(kind, 2, 8, target).unwrap()).collect()
}

/// Operations that have no kernel; the others are lowered.
fn without_kernel(plan: &Plan) -> impl Iterator<Item = &Operation> {
    let nodes = plan.graph.nodes();
    nodes.iter().filter(|node| node.operation.computes()).filter_map(|node| {
        if !has_kernel(&node.operation) {
            return Some(&node.operation);
        }
        let types: Vec<TensorType> = node.inputs.iter().map(|&input| nodes[input].tensor_type()).collect();
        let lowering = lower(&node.operation, &types, &node.outputs).unwrap();
        assert!(!lowering.steps.is_empty());
        None
    })
}

fn name(operation: &Operation) -> String {
    let text = format!("{operation:?}");
    text.split([' ', '(']).next().unwrap_or_default().to_owned()
}

#[test]
fn operations_of_training_steps_have_kernels() {
    let mut missing = BTreeSet::new();
    for case in cases() {
        for (dropout, dtype) in [(0.0, DType::F32), (0.0, DType::Bf16), (0.1, DType::F32), (0.1, DType::Bf16)]
        {
            for plan in plans(&case, dropout, dtype, &MetalTarget) {
                missing.extend(without_kernel(&plan).map(name));
            }
        }
    }
    // The host computes the angles once, in f64.
    assert_eq!(missing, BTreeSet::from(["RopeTable".to_owned()]));
}
