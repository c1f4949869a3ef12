//! The run loop: the only one, whoever looks on and whatever the device.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::device::Device;
use super::host_tensor::HostTensor;
use super::observer::{Observer, Unobserved};
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
    /// Results of submitted runs that the host has; those that the device keeps are younger.
    results: Vec<Vec<HostTensor>>,
    /// Runs whose results the device keeps.
    kept: usize,
    /// Why submitted runs are skipped until results are collected.
    failed: Option<Error>,
}

impl Engine {
    pub fn new(device: Box<dyn Device>) -> Self {
        Self { device, observer: Box::new(Unobserved), results: Vec::new(), kept: 0, failed: None }
    }

    /// Runs a step and reads its results.
    pub fn run(&mut self, plan: &Arc<Plan>, inputs: &StepInputs) -> Result<StepOutcome> {
        self.device.bind(plan)?;
        let start = Instant::now();
        self.dispatch(plan, inputs)?;
        let outputs = self.read(plan)?;
        Ok(StepOutcome { outputs, took: start.elapsed() })
    }

    /// Runs a step whose results, or whose failure, [`Self::collect`] gives.
    pub fn submit(&mut self, plan: &Arc<Plan>, inputs: &StepInputs) {
        if self.failed.is_none() {
            self.failed = self.run_and_keep(plan, inputs).err();
        }
    }

    fn run_and_keep(&mut self, plan: &Arc<Plan>, inputs: &StepInputs) -> Result<()> {
        self.device.bind(plan)?;
        self.dispatch(plan, inputs)?;
        if self.device.keeps() == 0 {
            let results = self.read(plan)?;
            self.results.push(results);
            return Ok(());
        }
        if self.kept >= self.device.keeps() {
            self.fetch()?;
        }
        self.kept += 1;
        self.device.keep(&plan.graph.roots()[..plan.read_back])
    }

    /// The results of all runs submitted since the last call, in order. Waits for the device once, however many they are.
    pub fn collect(&mut self) -> Result<Vec<Vec<HostTensor>>> {
        let fetched = if self.kept > 0 { self.fetch() } else { Ok(()) };
        let results = std::mem::take(&mut self.results);
        match self.failed.take() {
            Some(error) => Err(error),
            None => fetched.map(|()| results),
        }
    }

    /// Brings what the device keeps to the host.
    fn fetch(&mut self) -> Result<()> {
        self.kept = 0;
        self.device.synchronize()?;
        self.results.extend(self.device.collect()?);
        Ok(())
    }

    fn dispatch(&mut self, plan: &Plan, inputs: &StepInputs) -> Result<()> {
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
        (0..plan.batches.len()).try_for_each(|batch| self.run_batch(plan, batch))
    }

    fn read(&mut self, plan: &Plan) -> Result<Vec<HostTensor>> {
        self.device.synchronize()?;
        let roots = &plan.graph.roots()[..plan.read_back];
        roots.iter().map(|&root| self.device.read(root)).collect()
    }

    fn run_batch(&mut self, plan: &Plan, batch: usize) -> Result<()> {
        let start = Instant::now();
        if self.observer.one_by_one() {
            // What the device only takes note of would be timed as if it were done.
            let waits = self.device.keeps() > 0;
            for (position, &index) in plan.batches[batch].iter().enumerate() {
                let start = Instant::now();
                self.device.run_operation(batch, position)?;
                if waits {
                    self.device.synchronize()?;
                }
                self.observer.operation_done(plan, index, start.elapsed());
            }
        } else {
            self.device.run_batch(batch)?;
        }
        self.observer.batch_done(plan, batch, start.elapsed());
        Ok(())
    }
}
