//! What happened, and what the model said: the last of each.

use std::collections::VecDeque;
use std::time::Duration;

use crate::metrics::Sample;

/// Entries that are kept.
const ENTRIES: usize = 500;
/// Samples that are kept.
const SAMPLES: usize = 100;
/// Characters of a message or a sample that are kept.
const LONGEST: usize = 4000;

/// How much an entry matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    Plain,
    Good,
    Warning,
    Bad,
}

/// One line of the event log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// On the run's clock.
    pub at: Duration,
    pub step: usize,
    pub weight: Weight,
    pub text: String,
}

/// Entries and samples, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Log {
    pub entries: VecDeque<Entry>,
    pub samples: VecDeque<Sample>,
    /// Entries that are no longer kept.
    pub forgotten: u64,
}

impl Log {
    /// Adds an entry; the oldest one makes room.
    pub fn add(&mut self, at: Duration, step: usize, weight: Weight, text: &str) {
        if self.entries.len() == ENTRIES {
            self.entries.pop_front();
            self.forgotten += 1;
        }
        self.entries.push_back(Entry { at, step, weight, text: shortened(text) });
    }

    /// Adds a sample; the oldest one makes room.
    pub fn sample(&mut self, sample: &Sample) {
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        let (prompt, text) = (shortened(&sample.prompt), shortened(&sample.text));
        self.samples.push_back(Sample { step: sample.step, prompt, text });
    }
}

/// The start of a text that may be of any length.
fn shortened(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}
