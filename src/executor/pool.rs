//! The threads that kernels run on.
//!
//! A batch holds kernels that do not depend on each other. All their parts are numbered in one row; threads claim the
//! next number until none is left, so no thread waits while there is work, and since parts fix the bits, who runs
//! which does not matter.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::kernels::Kernel;

/// How long a thread looks for work before it sleeps: about what waking up costs.
const SPIN: Duration = Duration::from_micros(80);
/// A part number past every batch: stops threads from claiming more.
const STOP: usize = usize::MAX / 2;

/// Kernels that may run side by side.
pub struct Batch {
    kernels: Vec<Arc<dyn Kernel>>,
    parts: usize,
    scratch_bytes: usize,
}

impl Batch {
    pub fn new(kernels: Vec<Arc<dyn Kernel>>) -> Self {
        let parts = kernels.iter().map(|kernel| kernel.parts()).sum();
        let scratch_bytes = kernels.iter().map(|kernel| kernel.scratch_bytes()).max().unwrap_or(0);
        Self { kernels, parts, scratch_bytes }
    }

    /// Parts of all kernels together.
    pub fn parts(&self) -> usize {
        self.parts
    }

    /// Scratch memory that one thread needs for it.
    pub fn scratch_bytes(&self) -> usize {
        self.scratch_bytes
    }
}

/// One cache line of scratch memory.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// What the threads share.
struct Shared {
    desk: Mutex<Desk>,
    /// Counts batches and the shutdown; threads that spin watch it.
    announced: AtomicUsize,
    work: Condvar,
    /// Workers inside the current batch; only rises with the desk locked.
    active: AtomicUsize,
    idle: Condvar,
    next_part: AtomicUsize,
    /// One for each thread, the caller's first.
    scratch: Vec<Mutex<Vec<Line>>>,
}

/// Where work is handed out.
struct Desk {
    batch: Option<Arc<Batch>>,
    /// What the first part that panicked said.
    failure: Option<String>,
    closed: bool,
}

/// A fixed number of threads that run batches, one batch at a time. The calling thread is one of them.
pub struct ThreadPool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held while a batch runs.
    turn: Mutex<()>,
}

/// Locks whatever happened to earlier holders: no code that can panic runs while these locks are held, but for kernels,
/// whose panics are caught.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks at `done` until it is true or it is time to sleep.
fn spin_until(done: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    loop {
        for _ in 0..64 {
            if done() {
                return true;
            }
            std::hint::spin_loop();
        }
        if start.elapsed() > SPIN {
            return false;
        }
    }
}

impl ThreadPool {
    /// A pool of `threads` threads (at least one), the caller included.
    ///
    /// # Errors
    /// A device error if the system gives no more threads.
    pub fn new(threads: usize) -> Result<Self> {
        let threads = threads.max(1);
        let shared = Arc::new(Shared {
            desk: Mutex::new(Desk { batch: None, failure: None, closed: false }),
            announced: AtomicUsize::new(0),
            work: Condvar::new(),
            active: AtomicUsize::new(0),
            idle: Condvar::new(),
            next_part: AtomicUsize::new(0),
            scratch: (0..threads).map(|_| Mutex::new(Vec::new())).collect(),
        });
        let mut pool = Self { shared, workers: Vec::new(), turn: Mutex::new(()) };
        for index in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let worker = std::thread::Builder::new()
                .name(format!("kernel-{index}"))
                .spawn(move || shared.serve(index))
                .map_err(|error| {
                    Error::device(format!("cannot start compute thread {index} of {threads}: {error}"))
                        .hint("lower the number of threads")
                })?;
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    /// Threads, the caller included.
    pub fn threads(&self) -> usize {
        self.shared.scratch.len()
    }

    /// Makes sure that every thread has so much scratch memory, so that running allocates nothing.
    pub fn reserve_scratch(&self, bytes: usize) {
        let _turn = lock(&self.turn);
        self.shared.reserve(bytes);
    }

    /// Runs all parts of the batch and returns when they are done. Calls from several threads take turns.
    ///
    /// # Errors
    /// An internal error if a kernel panicked; its outputs, and others' of the batch, are then incomplete.
    pub fn run(&self, batch: &Arc<Batch>) -> Result<()> {
        let _turn = lock(&self.turn);
        let shared = &*self.shared;
        shared.reserve(batch.scratch_bytes);
        shared.next_part.store(0, Ordering::Relaxed);
        let alone = self.workers.is_empty() || batch.parts <= 1;
        if !alone {
            shared.announce(|desk| desk.batch = Some(Arc::clone(batch)));
        }
        shared.work_on(batch, 0);
        if !alone {
            lock(&shared.desk).batch = None;
            shared.wait_until_idle();
        }
        match lock(&shared.desk).failure.take() {
            Some(failure) => Err(Error::internal(failure)),
            None => Ok(()),
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.announce(|desk| desk.closed = true);
        for worker in self.workers.drain(..) {
            // A worker ends only when told to; there is nothing to learn from how.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn reserve(&self, bytes: usize) {
        for scratch in &self.scratch {
            let mut scratch = lock(scratch);
            let lines = bytes.div_ceil(size_of::<Line>());
            if scratch.len() < lines {
                *scratch = vec![Line([0; 64]); lines];
            }
        }
    }

    /// Changes the desk and wakes the workers. Counting under the lock means that a worker about to sleep either sees
    /// the count or is asleep before the wake-up.
    fn announce(&self, change: impl FnOnce(&mut Desk)) {
        let mut desk = lock(&self.desk);
        change(&mut desk);
        self.announced.fetch_add(1, Ordering::Release);
        drop(desk);
        self.work.notify_all();
    }

    /// A worker's life: waits for a batch, works on it, reports.
    fn serve(&self, thread: usize) {
        let mut known = 0;
        loop {
            spin_until(|| self.announced.load(Ordering::Acquire) != known);
            let mut desk = lock(&self.desk);
            while self.announced.load(Ordering::Acquire) == known && !desk.closed {
                desk = self.work.wait(desk).unwrap_or_else(PoisonError::into_inner);
            }
            known = self.announced.load(Ordering::Acquire);
            if desk.closed {
                return;
            }
            let Some(batch) = desk.batch.clone() else { continue };
            self.active.fetch_add(1, Ordering::Relaxed);
            drop(desk);
            self.work_on(&batch, thread);
            drop(batch);
            if self.active.fetch_sub(1, Ordering::Release) == 1 {
                // With the desk locked, the caller is either asleep or has yet to look at the count.
                let _desk = lock(&self.desk);
                self.idle.notify_one();
            }
        }
    }

    fn wait_until_idle(&self) {
        let idle = || self.active.load(Ordering::Acquire) == 0;
        if spin_until(idle) {
            return;
        }
        let mut desk = lock(&self.desk);
        while !idle() {
            desk = self.idle.wait(desk).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Claims and runs parts until none is left.
    fn work_on(&self, batch: &Batch, thread: usize) {
        let mut scratch = lock(&self.scratch[thread]);
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut scratch);
        let mut kernels = batch.kernels.iter();
        // The kernel at hand and the numbers of its parts; numbers only rise, so kernels behind are done with.
        let mut current: Option<&dyn Kernel> = None;
        let (mut first, mut end) = (0, 0);
        loop {
            let part = self.next_part.fetch_add(1, Ordering::Relaxed);
            if part >= batch.parts {
                return;
            }
            while part >= end {
                let Some(kernel) = kernels.next() else { return };
                (first, end) = (end, end + kernel.parts());
                current = Some(&**kernel);
            }
            let Some(kernel) = current else { return };
            let outcome = catch_unwind(AssertUnwindSafe(|| kernel.run(part - first, bytes)));
            if let Err(panic) = outcome {
                self.next_part.store(STOP, Ordering::Relaxed);
                lock(&self.desk).failure.get_or_insert_with(|| describe(&*panic));
                return;
            }
        }
    }
}

fn describe(panic: &(dyn Any + Send)) -> String {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    format!("a kernel failed: {message}")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    /// Counts how often each of its parts ran; fails at one of them.
    struct Counter {
        runs: Arc<Vec<AtomicU32>>,
        fails_at: Option<usize>,
        scratch: usize,
    }

    impl Kernel for Counter {
        fn parts(&self) -> usize {
            self.runs.len()
        }

        fn run(&self, part: usize, scratch: &mut [u8]) {
            assert_ne!(Some(part), self.fails_at, "part {part} was told to fail");
            assert!(scratch.len() >= self.scratch && scratch.as_ptr().align_offset(64) == 0);
            scratch.fill(part as u8);
            self.runs[part].fetch_add(1, Ordering::Relaxed);
        }

        fn scratch_bytes(&self) -> usize {
            self.scratch
        }
    }

    fn batch(sizes: &[usize], fails_at: Option<usize>) -> (Arc<Batch>, Vec<Arc<Vec<AtomicU32>>>) {
        let counts: Vec<Arc<Vec<AtomicU32>>> =
            sizes.iter().map(|&n| Arc::new((0..n).map(|_| AtomicU32::new(0)).collect())).collect();
        let kernels = counts.iter().map(|runs| {
            let counter = Counter { runs: Arc::clone(runs), fails_at, scratch: 100 * runs.len() };
            Arc::new(counter) as Arc<dyn Kernel>
        });
        (Arc::new(Batch::new(kernels.collect())), counts)
    }

    #[test]
    fn every_part_runs_once_in_each_of_many_runs() {
        for threads in [1, 2, 3, 8] {
            let pool = ThreadPool::new(threads).unwrap();
            let (batch, counts) = batch(&[3, 0, 1, 17, 0], None);
            let (small, _) = super::tests::batch(&[1], None);
            for round in 1..=3000u32 {
                pool.run(&batch).unwrap();
                assert!(counts.iter().flat_map(|c| c.iter()).all(|c| c.load(Ordering::Relaxed) == round));
                if round % 500 == 0 {
                    // Long enough for the workers to fall asleep.
                    std::thread::sleep(Duration::from_millis(2));
                    pool.run(&small).unwrap();
                }
            }
        }
    }

    #[test]
    fn a_panic_becomes_an_error_and_the_pool_lives_on() {
        let pool = ThreadPool::new(3).unwrap();
        let (bad, _) = batch(&[100], Some(40));
        let (good, counts) = batch(&[5], None);
        for round in 1..=20u32 {
            let error = pool.run(&bad).unwrap_err();
            assert!(error.to_string().contains("part 40 was told to fail"), "{error}");
            pool.run(&good).unwrap();
            assert!(counts[0].iter().all(|c| c.load(Ordering::Relaxed) == round));
        }
    }

    #[test]
    fn callers_take_turns() {
        let pool = ThreadPool::new(2).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let (batch, counts) = batch(&[7, 2], None);
                    for round in 1..=300u32 {
                        pool.run(&batch).unwrap();
                        assert!(
                            counts.iter().flat_map(|c| c.iter()).all(|c| c.load(Ordering::Relaxed) == round)
                        );
                    }
                });
            }
        });
    }

    #[test]
    fn an_empty_batch_is_done_at_once() {
        ThreadPool::new(2).unwrap().run(&Arc::new(Batch::new(Vec::new()))).unwrap();
    }
}
