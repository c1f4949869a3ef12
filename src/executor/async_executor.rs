//! The asynchronous front: steps are submitted and awaited; computation has its own thread.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use tokio::sync::{Semaphore, oneshot};

use super::device::{Device, DeviceCounters, WeightLoader};
use super::engine::{Engine, StepInputs, StepOutcome};
use super::host_tensor::HostTensor;
use super::observer::Observer;
use crate::error::{Error, Result};
use crate::graph::LazyTensor;
use crate::plan::{CacheCounts, Plan, PlanCache, PlanKey, Target, compile};

/// Plans kept at once: every pair of rows and bucketed length that a run meets, and a few more.
const PLAN_CAPACITY: usize = 64;
/// Submitted runs that the device has not been given in whole, at most: one that it is being given, and the next one.
const WAITING_RUNS: usize = 2;

type Job = Box<dyn FnOnce(&mut Engine) + Send>;

/// Runs plans on a device. A handle is shared freely; no call blocks a tokio worker, because everything that computes
/// happens on the executor's own threads.
pub struct AsyncGraphExecutor {
    jobs: Option<Sender<Job>>,
    worker: Option<JoinHandle<()>>,
    plans: PlanCache,
    target: Arc<dyn Target + Send + Sync>,
    device_name: String,
    defers: bool,
    /// A permit for each run that may wait.
    waiting: Arc<Semaphore>,
}

impl AsyncGraphExecutor {
    /// Starts the thread that owns `device`.
    ///
    /// # Errors
    /// A device error if the system gives no thread.
    pub fn new(device: Box<dyn Device>) -> Result<Self> {
        let (target, device_name, defers) = (device.target(), device.name(), device.keeps() > 0);
        let (jobs, queue) = channel::<Job>();
        let work = move || {
            let mut engine = Engine::new(device);
            while let Ok(job) = queue.recv() {
                job(&mut engine);
            }
        };
        let worker = std::thread::Builder::new().name("lazytune-executor".into()).spawn(work);
        let worker = worker.map_err(|e| Error::device(format!("cannot start the executor's thread: {e}")))?;
        Ok(Self {
            jobs: Some(jobs),
            worker: Some(worker),
            plans: PlanCache::new(PLAN_CAPACITY),
            target,
            device_name,
            defers,
            waiting: Arc::new(Semaphore::new(WAITING_RUNS)),
        })
    }

    /// The most operations that the scheduler puts into one batch.
    pub fn batch_size_hint(&self) -> usize {
        self.target.batch_size_hint()
    }

    pub fn target(&self) -> &dyn Target {
        self.target.as_ref()
    }

    pub fn device_name(&self) -> &str {
        &self.device_name
    }

    /// Whether results stay on the device until they are collected, so that collecting those of several runs at once saves
    /// waits.
    pub fn defers(&self) -> bool {
        self.defers
    }

    /// Hits and misses of the plan cache.
    pub fn plan_counts(&self) -> CacheCounts {
        self.plans.counts()
    }

    /// The cached plan for `key`, compiled at the first request.
    ///
    /// # Errors
    /// Whatever `compile` returns.
    pub fn plan(
        &self,
        key: &PlanKey,
        compile: impl FnOnce(&dyn Target) -> Result<Plan>,
    ) -> Result<Arc<Plan>> {
        self.plans.get_or_compile(key, || compile(self.target.as_ref()))
    }

    /// Runs one step of a plan.
    ///
    /// # Errors
    /// A shape error for inputs that are not the plan's; a device error if a kernel fails.
    pub async fn run(&self, plan: Arc<Plan>, inputs: StepInputs) -> Result<StepOutcome> {
        self.with_engine(move |engine| engine.run(&plan, &inputs)).await
    }

    /// Submits one step of a plan, and returns while it runs: [`Self::collect`] gives its results, or why it failed; what is
    /// submitted after a failure does not run.
    ///
    /// # Errors
    /// An internal error if the executor's thread is gone.
    pub async fn submit(&self, plan: Arc<Plan>, inputs: StepInputs) -> Result<()> {
        let permit = self.waiting.clone().acquire_owned().await.map_err(|_| gone())?;
        self.send(Box::new(move |engine| {
            engine.submit(&plan, &inputs);
            drop(permit);
        }))
    }

    /// The results of all runs submitted since the last call, in order, after a wait for the last one.
    ///
    /// # Errors
    /// What the first run that failed failed with: a shape error for inputs that are not the plan's, a device error if a
    /// kernel fails. The results of the others are lost then.
    pub async fn collect(&self) -> Result<Vec<Vec<HostTensor>>> {
        self.with_engine(Engine::collect).await
    }

    /// Computes one tensor that depends on no input; see [`Self::execute_tensor_parallel`].
    ///
    /// # Errors
    /// As for [`Self::execute_tensor_parallel`].
    pub async fn execute_tensor(&self, tensor: &LazyTensor) -> Result<HostTensor> {
        let outputs = self.execute_tensor_parallel(std::slice::from_ref(tensor), StepInputs::new()).await?;
        outputs.into_iter().next().ok_or_else(|| Error::internal("a plan with one root gave no output"))
    }

    /// Computes several tensors of one graph together, independent operations side by side.
    ///
    /// # Errors
    /// The shape error that building the graph met, or a device error.
    pub async fn execute_tensor_parallel(
        &self,
        tensors: &[LazyTensor],
        inputs: StepInputs,
    ) -> Result<Vec<HostTensor>> {
        let Some(first) = tensors.first() else { return Ok(Vec::new()) };
        let graph = first.graph().freeze(tensors)?;
        let program = graph.fingerprint();
        let key = PlanKey { program, shape: (0, 0), device: self.device_name.clone(), memory_budget: None };
        let plan = self.plan(&key, |target| compile(graph, tensors.len(), target))?;
        Ok(self.run(plan, inputs).await?.outputs)
    }

    /// Where frozen weights come from.
    ///
    /// # Errors
    /// An internal error if the executor's thread is gone.
    pub async fn set_weights(&self, loader: Arc<WeightLoader>) -> Result<()> {
        self.with_engine(move |engine| {
            engine.device.set_weights(loader);
            Ok(())
        })
        .await
    }

    /// Creates or replaces states.
    ///
    /// # Errors
    /// A memory error if the device has no room.
    pub async fn set_states(&self, states: Vec<(String, HostTensor)>) -> Result<()> {
        self.with_engine(move |engine| {
            states.iter().try_for_each(|(name, value)| engine.device.set_state(name, value))
        })
        .await
    }

    /// Copies of states, in the order asked for.
    ///
    /// # Errors
    /// An internal error for a state that was never set.
    pub async fn states(&self, names: Vec<String>) -> Result<Vec<HostTensor>> {
        self.with_engine(move |engine| names.iter().map(|name| engine.device.state(name)).collect()).await
    }

    /// Replaces the observer of the run loop and gives the old one back.
    ///
    /// # Errors
    /// An internal error if the executor's thread is gone.
    pub async fn observe(&self, observer: Box<dyn Observer>) -> Result<Box<dyn Observer>> {
        self.with_engine(move |engine| Ok(std::mem::replace(&mut engine.observer, observer))).await
    }

    /// Hits and misses of the tensor cache.
    ///
    /// # Errors
    /// An internal error if the executor's thread is gone.
    pub async fn tensor_cache(&self) -> Result<CacheCounts> {
        let counters = self.counters().await?;
        Ok(CacheCounts { hits: counters.tensor_cache_hits, misses: counters.tensor_cache_misses })
    }

    /// The device's counts of cache hits and bytes.
    ///
    /// # Errors
    /// An internal error if the executor's thread is gone.
    pub async fn counters(&self) -> Result<DeviceCounters> {
        self.with_engine(|engine| Ok(engine.device.counters())).await
    }

    async fn with_engine<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Engine) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.send(Box::new(move |engine| {
            // The caller may have given up waiting.
            let _ = reply.send(work(engine));
        }))?;
        answer.await.map_err(|_| gone())?
    }

    fn send(&self, job: Job) -> Result<()> {
        self.jobs.as_ref().ok_or_else(gone)?.send(job).map_err(|_| gone())
    }
}

fn gone() -> Error {
    Error::internal("the executor's thread has stopped")
}

impl Drop for AsyncGraphExecutor {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

impl LazyTensor {
    /// Computes this value, which depends on no input, on `executor`.
    ///
    /// # Errors
    /// The shape error that building the graph met, or a device error.
    pub async fn eval(&self, executor: &AsyncGraphExecutor) -> Result<HostTensor> {
        executor.execute_tensor(self).await
    }
}
