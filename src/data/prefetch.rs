//! Prepares windows on a thread of its own while the step before them runs.

use super::loader::{Loader, LoaderState, Window};
use super::streaming::StreamingLoader;
use crate::error::{Error, Result};
use std::thread::{self, JoinHandle};
use tokio::sync::mpsc;

/// A loader that works ahead. Windows come in the same order and with the same states.
#[derive(Debug)]
pub struct PrefetchingLoader {
    windows: mpsc::Receiver<Result<Window>>,
    worker: Option<JoinHandle<()>>,
    state: LoaderState,
    windows_per_epoch: usize,
}

impl PrefetchingLoader {
    /// Starts preparing up to `depth` windows ahead (at least one).
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn new(mut loader: Loader, depth: usize) -> Result<Self> {
        let (state, windows_per_epoch) = (loader.state().clone(), loader.windows_per_epoch());
        Self::start(state, windows_per_epoch, depth, move || loader.next_window())
    }

    /// The same for rows that are read while they are trained on.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn streaming(mut loader: StreamingLoader, depth: usize) -> Result<Self> {
        let (state, windows_per_epoch) = (loader.state().clone(), loader.windows_per_epoch());
        Self::start(state, windows_per_epoch, depth, move || loader.next_window())
    }

    fn start(
        state: LoaderState,
        windows_per_epoch: usize,
        depth: usize,
        mut next_window: impl FnMut() -> Result<Window> + Send + 'static,
    ) -> Result<Self> {
        let (sender, windows) = mpsc::channel(depth.max(1));
        let work = move || loop {
            let window = next_window();
            let failed = window.is_err();
            // Sending fails once the receiving side is gone.
            if sender.blocking_send(window).is_err() || failed {
                return;
            }
        };
        let worker = thread::Builder::new()
            .name("data-loader".to_owned())
            .spawn(work)
            .map_err(|error| Error::internal(format!("cannot start the data loader thread: {error}")))?;
        Ok(Self { windows, worker: Some(worker), state, windows_per_epoch })
    }

    /// The next window, from asynchronous code.
    ///
    /// # Errors
    /// Loading failed; later calls fail too.
    pub async fn next_window(&mut self) -> Result<Window> {
        let window = self.windows.recv().await;
        self.accept(window)
    }

    /// The next window, from a thread outside of the asynchronous runtime.
    ///
    /// # Errors
    /// Loading failed; later calls fail too.
    pub fn next_window_blocking(&mut self) -> Result<Window> {
        let window = self.windows.blocking_recv();
        self.accept(window)
    }

    /// The position after the last window handed out, whatever was prepared beyond it.
    pub fn state(&self) -> &LoaderState {
        &self.state
    }

    /// Optimizer steps in an epoch; where rows are streamed, about as many.
    pub fn windows_per_epoch(&self) -> usize {
        self.windows_per_epoch
    }

    fn accept(&mut self, window: Option<Result<Window>>) -> Result<Window> {
        let window = window.unwrap_or_else(|| Err(Error::internal("the data loader thread has stopped")))?;
        self.state = window.state_after.clone();
        Ok(window)
    }
}

/// Stops the thread after the window it is working on.
impl Drop for PrefetchingLoader {
    fn drop(&mut self) {
        self.windows.close();
        if let Some(worker) = self.worker.take() {
            // A crash of the thread has already been reported by `next_window`.
            let _ = worker.join();
        }
    }
}
