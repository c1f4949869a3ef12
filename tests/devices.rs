//! Every device runs the same step: candle's operations, the CPU's plain ones and its fused kernels agree.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod support;

use std::path::Path;
use std::sync::Arc;

use lazytune::executor::candle::CandleDevice;
use lazytune::executor::{CpuDevice, CpuOptions, Device, HostTensor};
use lazytune::generate::{Generator, Sampling};
use lazytune::graph::DType;
use lazytune::model::{ModelSource, lora_b_name};
use lazytune::train::{StepBuilder, Trainer};
use support::small_step::{constant_rate, open, small_step};
use support::{block_on, two_threads};

const BASE: &str = "tests/goldens/untied_odd/base";
const EXPERTS: &str = "tests/goldens/qwen3_moe_mixed/base";

fn candle() -> Box<dyn Device> {
    Box::new(CandleDevice::new(candle_core::Device::Cpu))
}

fn cpu(options: CpuOptions) -> Box<dyn Device> {
    Box::new(CpuDevice::new(options).unwrap())
}

/// Losses and gradient norms of five steps.
fn losses(device: Box<dyn Device>, dropout: f64) -> Vec<[f64; 2]> {
    losses_of(BASE, device, dropout, None)
}

fn losses_of(base: &str, device: Box<dyn Device>, dropout: f64, memory_budget: Option<u64>) -> Vec<[f64; 2]> {
    let source = Arc::new(ModelSource::open_folder(Path::new(base)).unwrap());
    let (builder, values, window) = small_step(&source, dropout);
    let builder = StepBuilder { memory_budget, ..builder };
    block_on(async {
        let executor = open(device, &source).await;
        let mut trainer = Trainer::new(executor, builder, constant_rate(5), 7, values).await.unwrap();
        let mut losses = Vec::new();
        for _ in 0..5 {
            let report = trainer.step(&window, 0.0).await.unwrap();
            losses.push([report.loss, report.grad_norm]);
        }
        losses
    })
}

fn assert_close(found: &[[f64; 2]], expected: &[[f64; 2]]) {
    for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
        assert!((found - expected).abs() < 2e-4 * expected.abs(), "{found} instead of {expected}");
    }
}

#[test]
fn candle_and_plain_operations_agree_with_the_fused_kernels() {
    for dropout in [0.0, 0.3] {
        let fused = losses(cpu(two_threads()), dropout);
        assert_close(&losses(candle(), dropout), &fused);
        assert_close(&losses(cpu(CpuOptions { fused_kernels: false, ..two_threads() }), dropout), &fused);
        assert_close(&losses(cpu(CpuOptions { fuse: false, ..two_threads() }), dropout), &fused);
    }
}

/// Where there is a GPU: with the kernels of fused operations, or as plain operations on those that cannot run them.
#[cfg(feature = "metal")]
#[test]
fn metal_agrees_with_the_cpu() {
    match lazytune::executor::metal::open() {
        Ok(device) => assert_close(&losses(device, 0.0), &losses(cpu(two_threads()), 0.0)),
        Err(error) => println!("skipped: {error}"),
    }
}

#[test]
fn every_device_trains_experts() {
    let with = |options| losses_of(EXPERTS, cpu(options), 0.0, None);
    let fused = with(two_threads());
    assert_close(&losses_of(EXPERTS, candle(), 0.0, None), &fused);
    assert_close(&with(CpuOptions { fused_kernels: false, ..two_threads() }), &fused);
    for threads in [1, 3] {
        assert_eq!(with(CpuOptions { threads, ..two_threads() }), fused);
    }
    assert_eq!(with(CpuOptions { rematerialize: false, ..two_threads() }), fused);
    assert_eq!(losses_of(EXPERTS, cpu(two_threads()), 0.0, Some(1)), fused, "routed otherwise a second time");
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let one = losses(cpu(CpuOptions { threads: 1, ..two_threads() }), 0.2);
    for threads in [2, 3, 5] {
        assert_eq!(losses(cpu(CpuOptions { threads, ..two_threads() }), 0.2), one);
    }
}

#[test]
fn every_device_generates_the_same_tokens() {
    let source = Arc::new(ModelSource::open_folder(Path::new(BASE)).unwrap());
    let (builder, values, _) = small_step(&source, 0.0);
    let tokens = |device: Box<dyn Device>, settled: bool| {
        block_on(async {
            let executor = open(device, &source).await;
            executor.set_states(values.clone().into_iter().collect()).await.unwrap();
            let generator = Generator {
                executor: &executor,
                decoder: &builder.decoder,
                trained: &builder.trained,
                settled,
                dtype: DType::F32,
                stop: &[],
            };
            generator.generate(&[3, 14, 15, 9, 26], 12, Sampling::GREEDY, &mut |_| {}).await.unwrap().tokens
        })
    };
    let fused = tokens(cpu(two_threads()), false);
    assert_eq!(fused.len(), 12);
    for settled in [false, true] {
        assert_eq!(tokens(candle(), settled), fused);
        assert_eq!(tokens(cpu(CpuOptions { fused_kernels: false, ..two_threads() }), settled), fused);
    }
    assert_eq!(tokens(cpu(two_threads()), true), fused);
}

#[test]
fn no_device_applies_a_step_whose_gradient_is_not_finite() {
    for device in [cpu(two_threads()), candle(), cpu(CpuOptions { fused_kernels: false, ..two_threads() })] {
        let source = Arc::new(ModelSource::open_folder(Path::new(BASE)).unwrap());
        let (builder, mut values, window) = small_step(&source, 0.0);
        let poisoned = lora_b_name("model.layers.0.self_attn.q_proj");
        let tensor = values[&poisoned].tensor;
        let infinite = vec![f32::INFINITY; tensor.shape.elements()];
        values.insert(poisoned, HostTensor::f32(tensor.shape.dims(), infinite).unwrap());
        block_on(async {
            let executor = open(device, &source).await;
            let mut trainer =
                Trainer::new(executor, builder, constant_rate(5), 7, values.clone()).await.unwrap();
            let error = trainer.step(&window, 0.0).await.unwrap_err();
            assert_eq!(error.kind(), lazytune::ErrorKind::Diverged);
            assert_eq!(trainer.trained_values().await.unwrap(), values);
        });
    }
}
