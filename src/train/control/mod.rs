//! Steering a run from outside: commands that the training loop obeys between steps.

#[cfg(unix)]
mod client;
#[cfg(unix)]
mod server;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::error::{Error, Result};
use crate::metrics::Command;

#[cfg(unix)]
pub use client::{Attached, Client};
#[cfg(unix)]
pub use server::ControlServer;

/// Name of the control socket in a run's folder.
pub const SOCKET: &str = "control.sock";

/// Commands that wait for the step to end, at most.
const WAITING: usize = 64;
/// Longest prompt, in bytes.
const LONGEST_PROMPT: usize = 16 << 10;
/// What one command may multiply the learning rate with, or divide it by.
const LARGEST_SCALE: f64 = 1e3;

/// Signals and commands to the training loop; clones speak to the same loop.
#[derive(Debug, Clone, Default)]
pub struct Control {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    commands: Mutex<VecDeque<Command>>,
    told: Notify,
}

impl Control {
    /// Asks the loop to save and stop after the step that is running. Returns whether that had been asked for before.
    pub fn stop(&self) -> bool {
        let before = self.shared.stop.swap(true, Ordering::SeqCst);
        self.shared.told.notify_one();
        before
    }

    pub fn stopping(&self) -> bool {
        self.shared.stop.load(Ordering::SeqCst)
    }

    /// Puts a command into the queue that the loop looks into between steps.
    ///
    /// # Errors
    /// A user error for a command that makes no sense, or when too many wait.
    pub fn send(&self, command: Command) -> Result<()> {
        check(&command)?;
        if command == (Command::Quit { stop: true }) {
            self.stop();
            return Ok(());
        }
        let mut commands = self.shared.commands.lock().unwrap_or_else(PoisonError::into_inner);
        if commands.len() >= WAITING {
            return Err(
                Error::user(format!("{WAITING} commands wait already")).hint("wait for the step to end")
            );
        }
        commands.push_back(command);
        drop(commands);
        self.shared.told.notify_one();
        Ok(())
    }

    /// The oldest command that waits.
    pub fn take(&self) -> Option<Command> {
        self.shared.commands.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Returns once there is something to do: a command, or a stop.
    pub async fn wait(&self) {
        let waits = || self.shared.commands.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        while !self.stopping() && waits() {
            self.shared.told.notified().await;
        }
    }
}

fn check(command: &Command) -> Result<()> {
    match command {
        Command::ScaleLearningRate(factor)
            if !(factor.is_finite() && (1.0 / LARGEST_SCALE..=LARGEST_SCALE).contains(factor)) =>
        {
            Err(Error::user(format!("the learning rate cannot be multiplied with {factor}"))
                .hint(format!("give a factor between {} and {LARGEST_SCALE}", 1.0 / LARGEST_SCALE)))
        }
        Command::Sample(prompt) if prompt.trim().is_empty() => Err(Error::user("the prompt is empty")),
        Command::Sample(prompt) if prompt.len() > LONGEST_PROMPT => {
            Err(Error::user(format!("the prompt is longer than {LONGEST_PROMPT} bytes")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senseless_commands_are_refused_and_the_queue_is_bounded() {
        let control = Control::default();
        for factor in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9] {
            assert!(control.send(Command::ScaleLearningRate(factor)).is_err(), "{factor}");
        }
        assert!(control.send(Command::Sample(" \n".into())).is_err());
        assert!(control.send(Command::Sample("x".repeat(LONGEST_PROMPT + 1))).is_err());
        for _ in 0..WAITING {
            control.send(Command::Pause).unwrap();
        }
        assert!(control.send(Command::Pause).is_err());
        assert!(!control.stopping());
        control.send(Command::Quit { stop: true }).unwrap();
        assert!(control.stopping() && control.stop());
        assert_eq!(control.take(), Some(Command::Pause));
    }
}
