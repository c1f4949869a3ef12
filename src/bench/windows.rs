//! The batches that are measured: windows of one shape from the configuration's data.

use crate::config::RunConfig;
use crate::data::Window;
use crate::error::{Error, Result};
use crate::train::setup::Setup;

/// Windows that are looked at in search of full ones.
const SEARCHED: usize = 4096;

/// Windows of the same shape, taken in turns.
pub(super) struct Windows(Vec<Window>);

/// Rows and tokens per row of every micro-batch.
fn shape(window: &Window) -> Vec<(usize, usize)> {
    window.batches.iter().map(|batch| (batch.rows, batch.sequence)).collect()
}

fn positions(window: &Window) -> usize {
    window.batches.iter().map(|batch| batch.rows * batch.sequence).sum()
}

impl Windows {
    /// The first `wanted` windows of an epoch whose shape is the largest that occurs.
    pub async fn choose(setup: &mut Setup, wanted: usize) -> Result<Self> {
        let config = &setup.config;
        let full =
            vec![(config.train.batch_size, config.data.max_length); config.train.gradient_accumulation_steps];
        let mut chosen: Vec<Window> = Vec::new();
        for _ in 0..setup.loader.windows_per_epoch().min(SEARCHED) {
            let window = setup.loader.next_window().await?;
            let best = chosen.first().map_or(0, positions);
            if positions(&window) > best {
                chosen.clear();
            }
            if chosen.first().is_none_or(|first| shape(first) == shape(&window)) {
                chosen.push(window);
            }
            if chosen.len() >= wanted && shape(&chosen[0]) == full {
                break;
            }
        }
        chosen.truncate(wanted);
        if chosen.is_empty() {
            return Err(Error::internal("the data set has no window"));
        }
        Ok(Self(chosen))
    }

    pub fn all(&self) -> &[Window] {
        &self.0
    }

    /// The window of step `index`.
    pub fn get(&self, index: usize) -> &Window {
        &self.0[index % self.0.len()]
    }

    /// Rows of the largest micro-batch.
    pub fn rows(&self) -> usize {
        self.0[0].batches.iter().map(|batch| batch.rows).max().unwrap_or(0)
    }

    /// Tokens per row of the longest micro-batch, padding included.
    pub fn sequence(&self) -> usize {
        self.0[0].batches.iter().map(|batch| batch.sequence).max().unwrap_or(0)
    }

    /// What the data could not fill.
    pub fn notice(&self, config: &RunConfig) -> Option<String> {
        let wanted = (config.train.batch_size, config.data.max_length);
        let (rows, sequence) = (self.rows(), self.sequence());
        if (rows, sequence) == wanted {
            return None;
        }
        let hint = if config.data.packing { "" } else { "; --set data.packing=true joins short rows" };
        Some(format!(
            "the data does not fill batches of {} x {} tokens: measured at {rows} x {sequence}{hint}",
            wanted.0, wanted.1
        ))
    }
}
