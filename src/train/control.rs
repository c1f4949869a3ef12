//! Signals from outside to the training loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Asks the loop to stop after the step that is running.
#[derive(Debug, Clone, Default)]
pub struct Control {
    stop: Arc<AtomicBool>,
}

impl Control {
    /// Returns whether a stop had been asked for before.
    pub fn stop(&self) -> bool {
        self.stop.swap(true, Ordering::SeqCst)
    }

    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}
