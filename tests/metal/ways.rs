//! Every way to train, replayed with the kernels as C++: losses and gradients are those of the CPU.

use std::path::Path;

use lazytune::executor::metal::ProgramDevice;
use lazytune::executor::{AsyncGraphExecutor, CpuDevice, CpuOptions, Device};
use lazytune::graph::DType;
use lazytune::kernels::metal::Element;
use lazytune::optim::{AdamW, Schedule, ScheduleShape};
use lazytune::train::{StepBuilder, Trainer};

use crate::compiler::can_compile;
use crate::gpu::Gpu;
use crate::plans::opened;
use crate::replay::LateQueue;
use crate::training::window;

const SCHEDULE: Schedule =
    Schedule { shape: ScheduleShape::Constant, peak: 1e-2, minimum: 0.0, warmup_steps: 0, total_steps: 2 };

/// Losses and gradient norms of a step, and of one that accumulates.
async fn losses(device: Box<dyn Device>, case: &str, dropout: f64, dtype: DType) -> Vec<f64> {
    let (model, trained, values) = opened(&Path::new("tests/goldens").join(case), dropout);
    let builder = StepBuilder {
        decoder: model.decoder.clone(),
        trained,
        dtype,
        optimizer: AdamW { betas: (0.9, 0.999), epsilon: 1e-8, weight_decay: 0.01, max_grad_norm: 1.0 },
        max_positions: 16,
        memory_budget: None,
    };
    let executor = AsyncGraphExecutor::new(device).unwrap();
    executor.set_weights(model.weight_loader()).await.unwrap();
    let mut trainer = Trainer::new(executor, builder, SCHEDULE, 7, values).await.unwrap();
    let mut losses = Vec::new();
    for micro_batches in [1, 2] {
        let report = trainer.step(&window(micro_batches, 31), 0.0).await.unwrap();
        losses.extend([report.loss, report.grad_norm]);
    }
    losses
}

fn check(case: &str, dropout: f64, dtype: DType, tolerance: f64) {
    if !can_compile() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let options = CpuOptions { threads: 2, ..CpuOptions::default() };
    let cpu = CpuDevice::new(options).unwrap();
    let expected = runtime.block_on(losses(Box::new(cpu), case, dropout, dtype));
    let gpu = Gpu { orders: &[7], ..Gpu::new(Element::F32, 64) };
    let device = ProgramDevice::new(LateQueue::new(gpu), 1e-3);
    let found = runtime.block_on(losses(Box::new(device), case, dropout, dtype));
    for (found, expected) in found.iter().zip(&expected) {
        let close = (found - expected).abs() < tolerance * expected.abs();
        assert!(close, "{case} in {dtype}: {found} instead of {expected}");
    }
    assert_eq!(found.len(), expected.len());
}

#[test]
fn adapters_with_magnitudes_and_dropout() {
    check("dora", 0.1, DType::F32, 2e-4);
}

#[test]
fn mixtures_of_experts() {
    check("qwen3_moe_mixed", 0.1, DType::F32, 2e-4);
}

#[test]
fn all_weights() {
    check("full", 0.0, DType::F32, 2e-4);
}

#[test]
fn adapters_of_embeddings_and_whole_tables() {
    check("embedding_dora", 0.0, DType::F32, 2e-4);
    check("saved_table", 0.0, DType::F32, 2e-4);
    check("tokens_tied", 0.0, DType::F32, 2e-4);
}

/// Where results are rounded to bf16 differs a little.
#[test]
fn activations_in_bf16() {
    check("gqa_tied", 0.1, DType::Bf16, 2e-2);
    check("full", 0.0, DType::Bf16, 2e-2);
}
