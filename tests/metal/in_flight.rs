//! Steps that the host submits ahead of the device: none sees the inputs of another, and results stay until they are
//! collected.

use std::collections::HashMap;
use std::sync::Arc;

use lazytune::executor::metal::{MetalTarget, ProgramDevice};
use lazytune::executor::{AsyncGraphExecutor, HostTensor, Sequential, StepInputs};
use lazytune::graph::{ComputationGraph, DType, Operation};
use lazytune::kernels::metal::Element;
use lazytune::plan::{Plan, compile};

use crate::compiler::can_compile;
use crate::gpu::Gpu;
use crate::replay::LateQueue;

/// More than results stay on the device, and than a small output holds.
const STEPS: usize = 40;
const WIDE: usize = 130;

/// Adds an input to a state. The results are the new sums, and their sum many times over.
fn running_sum() -> Arc<Plan> {
    let graph = ComputationGraph::new();
    let total = graph.state("total", &[4], DType::F32);
    let next = total.plus(&graph.input("x", &[4], DType::F32));
    let wide = next.sum(0).reshape(&[1, 1]).broadcast_to(&[WIDE, WIDE]);
    let update = total.then(Operation::Assign, &[&next]);
    let frozen = graph.freeze(&[next, wide, update]).unwrap();
    Arc::new(compile(frozen, 2, &MetalTarget).unwrap())
}

fn inputs(step: usize) -> StepInputs {
    let x = [1, 2, 3, 4].map(|i| (i * step) as f32).to_vec();
    HashMap::from([("x".to_owned(), HostTensor::f32(&[4], x).unwrap())])
}

/// The results of a step when all before it have run, from step 0 on.
fn check(step: usize, results: &[HostTensor]) {
    let steps = (step * (step + 1) / 2) as f64;
    assert_eq!(results[0].to_f64(), [1.0, 2.0, 3.0, 4.0].map(|i| i * steps), "step {step}");
    assert_eq!(results[1].to_f64(), vec![10.0 * steps; WIDE * WIDE], "step {step}");
}

async fn run() {
    let gpu = Gpu { orders: &[0], ..Gpu::new(Element::F32, 64) };
    let device = ProgramDevice::new(LateQueue::new(gpu), 1.0);
    let executor = AsyncGraphExecutor::new(Box::new(device)).unwrap();
    let zero = HostTensor::f32(&[4], vec![0.0; 4]).unwrap();
    executor.set_states(vec![("total".to_owned(), zero)]).await.unwrap();
    let plan = running_sum();
    for step in 0..STEPS {
        executor.submit(plan.clone(), inputs(step)).await.unwrap();
    }
    let results = executor.collect().await.unwrap();
    assert_eq!(results.len(), STEPS);
    results.iter().enumerate().for_each(|(step, results)| check(step, results));
    check(STEPS, &executor.run(plan.clone(), inputs(STEPS)).await.unwrap().outputs);
    executor.observe(Box::new(Sequential)).await.unwrap();
    check(STEPS + 1, &executor.run(plan.clone(), inputs(STEPS + 1)).await.unwrap().outputs);
    // A state with a value of its own again.
    let states = executor.states(vec!["total".to_owned()]).await.unwrap();
    assert_eq!(states[0].to_f64()[0], (STEPS + 1) as f64 * (STEPS + 2) as f64 / 2.0);
    let before = HostTensor::f32(&[4], vec![0.0; 4]).unwrap();
    executor.set_states(vec![("total".to_owned(), before)]).await.unwrap();
    check(1, &executor.run(plan, inputs(1)).await.unwrap().outputs);
}

#[test]
fn steps_in_flight_are_kept_apart() {
    if can_compile() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run());
    }
}
