//! The run loop: the only one, whoever looks on and whatever the device.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::device::Device;
use super::host_tensor::HostTensor;
use super::observer::Observer;
use crate::error::{Error, Result};
use crate::plan::Plan;

/// The values a step takes, by name.
pub type StepInputs = HashMap<String, HostTensor>;

/// What a step gives back.
#[derive(Debug, Clone)]
pub struct StepOutcome {
    /// The roots that the plan keeps readable, in order.
    pub outputs: Vec<HostTensor>,
    pub took: Duration,
}

/// A device and whoever observes it.
pub(super) struct Engine {
    pub device: Box<dyn Device>,
    pub observer: Box<dyn Observer>,
}

impl Engine {
    pub fn run(&mut self, plan: &Arc<Plan>, inputs: &StepInputs) -> Result<StepOutcome> {
        self.device.bind(plan)?;
        let start = Instant::now();
        for (index, name) in plan.inputs() {
            let value = inputs
                .get(name)
                .ok_or_else(|| Error::internal(format!("the step lacks its input {name}")))?;
            let expected = plan.graph.nodes()[index].tensor_type();
            if value.tensor != expected {
                return Err(Error::shape(format!(
                    "input {name} is {}, the plan takes {expected}",
                    value.tensor
                )));
            }
            self.device.write_input(index, value)?;
        }
        for batch in 0..plan.batches.len() {
            self.run_batch(plan, batch)?;
        }
        self.device.synchronize()?;
        let roots = &plan.graph.roots()[..plan.read_back];
        let outputs = roots.iter().map(|&root| self.device.read(root)).collect::<Result<Vec<_>>>()?;
        Ok(StepOutcome { outputs, took: start.elapsed() })
    }

    fn run_batch(&mut self, plan: &Plan, batch: usize) -> Result<()> {
        let start = Instant::now();
        if self.observer.one_by_one() {
            for (position, &index) in plan.batches[batch].iter().enumerate() {
                let start = Instant::now();
                self.device.run_operation(batch, position)?;
                self.observer.operation_done(plan, index, start.elapsed());
            }
        } else {
            self.device.run_batch(batch)?;
        }
        self.observer.batch_done(plan, batch, start.elapsed());
        Ok(())
    }
}
