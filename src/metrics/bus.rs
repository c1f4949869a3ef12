//! Between the training loop and sinks that may be slow: a bounded queue that never makes a step wait.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::{Event, Sink};
use crate::error::{Error, Result};

/// Events that wait for one sink, at most.
const CAPACITY: usize = 1024;

/// Hands events to a sink on a thread of its own. When the sink falls behind, the oldest measurements are dropped, which
/// later ones make up for, and then the oldest of all. Dropping it waits until the sink has seen what is left.
pub struct Buffered {
    shared: Arc<Shared>,
    worker: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    ready: Condvar,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Event>,
    closed: bool,
}

impl Buffered {
    /// # Errors
    /// A device error if the system gives no thread.
    pub fn new(name: &str, mut sink: Box<dyn Sink>) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let queue = shared.clone();
        let work = move || {
            while let Some(events) = queue.take() {
                events.iter().for_each(|event| sink.event(event));
            }
        };
        let worker = std::thread::Builder::new().name(name.to_owned()).spawn(work);
        let worker = worker.map_err(|error| Error::device(format!("cannot start a thread: {error}")))?;
        Ok(Self { shared, worker: Some(worker) })
    }
}

impl Sink for Buffered {
    fn event(&mut self, event: &Event) {
        self.shared.lock().push(event.clone(), CAPACITY);
        self.shared.ready.notify_one();
    }
}

impl Drop for Buffered {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.ready.notify_one();
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that waits, as soon as there is anything; `None` once the queue is closed and empty.
    fn take(&self) -> Option<VecDeque<Event>> {
        let mut queue = self.lock();
        while queue.events.is_empty() {
            if queue.closed {
                return None;
            }
            queue = self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        Some(std::mem::take(&mut queue.events))
    }
}

impl Queue {
    fn push(&mut self, event: Event, capacity: usize) {
        if self.events.len() >= capacity {
            let oldest = self.events.iter().position(is_measurement).unwrap_or(0);
            self.events.remove(oldest);
        }
        self.events.push_back(event);
    }
}

/// Whether a later event tells the same again.
fn is_measurement(event: &Event) -> bool {
    matches!(event, Event::Step(_) | Event::Profile { .. } | Event::Memory { .. } | Event::Layers { .. })
}

/// A sink whose events another thread of this process receives; the channel ends when the sink is dropped.
///
/// # Errors
/// As [`Buffered::new`].
pub fn channel(name: &str) -> Result<(Buffered, Receiver<Event>)> {
    struct Forward(SyncSender<Event>);
    impl Sink for Forward {
        fn event(&mut self, event: &Event) {
            // The receiver may be gone: then nobody looks any more.
            let _ = self.0.send(event.clone());
        }
    }
    let (sender, receiver) = sync_channel(CAPACITY);
    Ok((Buffered::new(name, Box::new(Forward(sender)))?, receiver))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::StepReport;

    fn step(step: usize) -> Event {
        Event::Step(StepReport { step, ..StepReport::default() })
    }

    #[test]
    fn a_full_queue_drops_old_measurements_first() {
        let mut queue = Queue::default();
        queue.push(Event::Paused { step: 1 }, 3);
        for number in 1..=9 {
            queue.push(step(number), 3);
        }
        let steps: Vec<_> = queue.events.iter().filter_map(Event::step).collect();
        assert_eq!(steps, [1, 8, 9]);
        assert_eq!(queue.events[0], Event::Paused { step: 1 });
        for number in 1..=9 {
            queue.push(Event::Resumed { step: number }, 3);
        }
        assert_eq!(queue.events.len(), 3);
    }

    #[test]
    fn a_sink_that_hangs_holds_up_nobody() {
        let (mut sink, receiver) = channel("test").unwrap();
        let start = std::time::Instant::now();
        (1..=100_000).for_each(|number| sink.event(&step(number)));
        assert!(start.elapsed().as_secs() < 5);
        let reader = std::thread::spawn(move || receiver.iter().filter_map(|event| event.step()).collect());
        drop(sink);
        let seen: Vec<usize> = reader.join().unwrap();
        assert_eq!(seen.last(), Some(&100_000));
        assert!(seen.len() < 10_000 && seen.is_sorted(), "{}", seen.len());
    }
}
