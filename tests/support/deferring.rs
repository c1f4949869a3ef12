//! The CPU as a device that keeps results, as a GPU does, and counts how often it is waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lazytune::error::{Error, Result};
use lazytune::executor::{CpuDevice, Device, DeviceCounters, HostTensor, WeightLoader};
use lazytune::plan::{Plan, Target};

use super::two_threads;

/// What a device was asked for; clones count together.
#[derive(Clone, Default)]
pub struct Asked {
    waits: Arc<AtomicUsize>,
    runs: Arc<AtomicUsize>,
}

impl Asked {
    /// Waits for the device since the last call.
    pub fn waits(&self) -> usize {
        self.waits.swap(0, Ordering::SeqCst)
    }

    /// Runs whose results were kept since the last call.
    pub fn runs(&self) -> usize {
        self.runs.swap(0, Ordering::SeqCst)
    }
}

/// What goes wrong, counted in runs whose results are kept, from 1.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    /// The loss of this run is not a number.
    NotFinite(usize),
    /// The device fails at this run.
    Failure(usize),
}

pub struct Deferring {
    cpu: CpuDevice,
    capacity: usize,
    fault: Fault,
    kept: Vec<Vec<HostTensor>>,
    /// Runs whose results were kept.
    runs: usize,
    /// Whether nothing was dispatched since the device was waited for.
    done: bool,
    asked: Asked,
}

impl Deferring {
    /// A device that keeps the results of `capacity` runs.
    pub fn open(capacity: usize, fault: Fault) -> (Box<dyn Device>, Asked) {
        let asked = Asked::default();
        let device = Self {
            cpu: CpuDevice::new(two_threads()).unwrap(),
            capacity,
            fault,
            kept: Vec::new(),
            runs: 0,
            done: true,
            asked: asked.clone(),
        };
        (Box::new(device), asked)
    }
}

impl Device for Deferring {
    fn name(&self) -> String {
        "deferring".into()
    }

    fn target(&self) -> Arc<dyn Target + Send + Sync> {
        self.cpu.target()
    }

    fn set_weights(&mut self, loader: Arc<WeightLoader>) {
        self.cpu.set_weights(loader);
    }

    fn set_state(&mut self, name: &str, value: &HostTensor) -> Result<()> {
        self.cpu.set_state(name, value)
    }

    fn state(&mut self, name: &str) -> Result<HostTensor> {
        self.cpu.state(name)
    }

    fn bind(&mut self, plan: &Arc<Plan>) -> Result<()> {
        self.cpu.bind(plan)
    }

    fn write_input(&mut self, index: usize, value: &HostTensor) -> Result<()> {
        self.cpu.write_input(index, value)
    }

    fn run_batch(&mut self, batch: usize) -> Result<()> {
        self.done = false;
        self.cpu.run_batch(batch)
    }

    fn run_operation(&mut self, batch: usize, position: usize) -> Result<()> {
        self.done = false;
        self.cpu.run_operation(batch, position)
    }

    fn synchronize(&mut self) -> Result<()> {
        self.asked.waits.fetch_add(1, Ordering::SeqCst);
        self.done = true;
        Ok(())
    }

    fn read(&mut self, index: usize) -> Result<HostTensor> {
        assert!(self.done, "a value was read that is still being computed");
        self.cpu.read(index)
    }

    fn keeps(&self) -> usize {
        self.capacity
    }

    fn keep(&mut self, indices: &[usize]) -> Result<()> {
        let kept = &mut self.kept;
        assert!(kept.len() < self.capacity, "more was kept than there is room for");
        self.runs += 1;
        self.asked.runs.fetch_add(1, Ordering::SeqCst);
        if self.fault == Fault::Failure(self.runs) {
            return Err(Error::device("the device was lost"));
        }
        let mut values = indices.iter().map(|&index| self.cpu.read(index)).collect::<Result<Vec<_>>>()?;
        if self.fault == Fault::NotFinite(self.runs) {
            values[0] = HostTensor::f32(values[0].tensor.shape.dims(), vec![f32::NAN]).unwrap();
        }
        kept.push(values);
        Ok(())
    }

    fn collect(&mut self) -> Result<Vec<Vec<HostTensor>>> {
        assert!(self.done, "results were collected that are still being computed");
        Ok(std::mem::take(&mut self.kept))
    }

    fn counters(&self) -> DeviceCounters {
        self.cpu.counters()
    }
}
