//! A closer look at one step out of many: operations by kind, the adapters layer by layer, memory.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::process::Process;
use super::{NamedTensors, PlannedMemory, Trainer};
use crate::adapter::AdaptedLinear;
use crate::error::Result;
use crate::executor::{DeviceCounters, HostTensor};
use crate::metrics::{Event, LayerReport, MemoryKind};
use crate::model::Trained;

/// Steps between two looks, at least.
const INTERVAL: usize = 50;
/// The part of the run's time that looking may take.
const SHARE: f64 = 0.005;
/// Trained numbers that are copied and compared; more are left alone.
const MOST_NUMBERS: usize = 16 << 20;

/// Decides which steps are looked at: the second one, and then as seldom as looking is expensive.
#[derive(Debug)]
pub struct Survey {
    next: usize,
    /// Of the look that is going on.
    spent: Duration,
    /// The trained values before the step.
    before: NamedTensors,
}

impl Survey {
    /// For a process that begins after `first_step` steps.
    pub fn new(first_step: usize) -> Self {
        Self { next: first_step + 2, spent: Duration::ZERO, before: NamedTensors::new() }
    }

    /// Whether the step after the `done` ones is looked at.
    pub fn is_due(&self, done: usize) -> bool {
        done + 1 >= self.next
    }

    /// To be called before the step that is due.
    ///
    /// # Errors
    /// A device error if the trained values cannot be read.
    pub async fn begin(&mut self, trainer: &Trainer, trained_numbers: usize) -> Result<()> {
        let start = Instant::now();
        if trained_numbers <= MOST_NUMBERS {
            self.before = trainer.trained_values().await?;
        }
        trainer.clock.profile();
        self.spent = start.elapsed();
        Ok(())
    }

    /// To be called after it; `step_ms` is what the step took.
    ///
    /// # Errors
    /// A device error if the trained values cannot be read.
    pub async fn end(&mut self, trainer: &Trainer, step_ms: f64) -> Result<Vec<Event>> {
        let start = Instant::now();
        let step = trainer.step;
        let mut events = vec![Event::Profile { step, kinds: trainer.clock.take_profile() }];
        let before = std::mem::take(&mut self.before);
        if !before.is_empty() {
            let layers = layers(&trainer.builder.trained, &before, &trainer.trained_values().await?);
            events.push(Event::Layers { step, layers });
        }
        let spent = (self.spent + start.elapsed()).as_secs_f64() * 1e3;
        let pause = (spent / (SHARE * step_ms.max(1e-3))).ceil() as usize;
        self.next = step + pause.max(INTERVAL);
        Ok(events)
    }
}

/// Planned and measured memory.
pub fn memory(step: usize, planned: &PlannedMemory, counters: DeviceCounters, limit: Option<u64>) -> Event {
    let kind = |kind: &str, planned: usize, measured: Option<usize>| MemoryKind {
        kind: kind.to_owned(),
        planned_bytes: planned as u64,
        measured_bytes: measured.map(|bytes| bytes as u64),
    };
    let kinds = vec![
        kind("weights", planned.weights, None),
        kind("tensor cache", planned.packed_weights, None),
        kind("trained", planned.trained, None),
        kind("optimizer", planned.optimizer, None),
        kind("gradients", planned.gradients, None),
        kind("activations", planned.arena, Some(counters.arena_bytes)),
    ];
    Event::Memory {
        step,
        kinds: kinds.into_iter().filter(|kind| kind.planned_bytes > 0).collect(),
        process_bytes: Process::now().resident_bytes.unwrap_or(0),
        limit_bytes: limit.unwrap_or(0),
    }
}

/// Sums of squares over one layer.
#[derive(Default)]
struct Squares {
    norm: f64,
    values: f64,
    change: f64,
}

fn layers(trained: &Trained, before: &NamedTensors, after: &NamedTensors) -> Vec<LayerReport> {
    let mut squares: BTreeMap<usize, Squares> = BTreeMap::new();
    for (name, value) in after {
        let (Some(layer), Some(old)) = (layer_of(name), before.get(name)) else { continue };
        let sums = squares.entry(layer).or_default();
        for (new, old) in value.to_f64().into_iter().zip(old.to_f64()) {
            sums.values += new * new;
            sums.change += (new - old) * (new - old);
        }
    }
    match trained {
        Trained::Adapters(adaptation) => {
            for adapter in adaptation.pairs.values() {
                let pair = after.get(&adapter.a_name()).zip(after.get(&adapter.b_name()));
                if let (Some(layer), Some((a, b))) = (adapter.layer, pair) {
                    let product = squared_norm_of_pairs(a, b, adapter);
                    squares.entry(layer).or_default().norm += adapter.scale * adapter.scale * product;
                }
            }
        }
        Trained::All | Trained::Nothing => squares.values_mut().for_each(|sums| sums.norm = sums.values),
    }
    let report = |(layer, sums): (usize, Squares)| LayerReport {
        layer,
        norm: sums.norm.sqrt(),
        update_ratio: (sums.change / sums.values.max(f64::MIN_POSITIVE)).sqrt(),
    };
    squares.into_iter().map(report).collect()
}

/// The number after `layers` in a path.
fn layer_of(name: &str) -> Option<usize> {
    let mut parts = name.split('.');
    parts.find(|&part| part == "layers")?;
    parts.next()?.parse().ok()
}

/// The sum over the experts of a layer that has them.
fn squared_norm_of_pairs(a: &HostTensor, b: &HostTensor, adapter: &AdaptedLinear) -> f64 {
    let (rank, a, b) = (adapter.rank, a.to_f64(), b.to_f64());
    let (of_a, of_b) = (rank * adapter.in_features, adapter.out_features * rank);
    let pairs = a.chunks(of_a.max(1)).zip(b.chunks(of_b.max(1)));
    pairs.map(|(a, b)| squared_norm_of_product(a, b, rank)).sum()
}

/// |B A|^2 = tr((B^T B) (A A^T)), without the product itself. A is `[rank, in]`, B `[out, rank]`.
fn squared_norm_of_product(a: &[f64], b: &[f64], rank: usize) -> f64 {
    let width = a.len() / rank.max(1);
    let mut sum = 0.0;
    for row in 0..rank {
        for column in 0..=row {
            let (left, right) = (&a[row * width..][..width], &a[column * width..][..width]);
            let of_a: f64 = left.iter().zip(right).map(|(left, right)| left * right).sum();
            let of_b: f64 = b.chunks_exact(rank).map(|b| b[row] * b[column]).sum();
            sum += of_a * of_b * if row == column { 1.0 } else { 2.0 };
        }
    }
    sum.max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_norm_of_a_product_needs_no_product() {
        // B A = [[1, 2], [3, 4], [5, 6]] [[1, 0, 2], [-1, 1, 0]]
        let a = [1.0, 0.0, 2.0, -1.0, 1.0, 0.0];
        let b = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let product: [f64; 9] = [-1.0, 2.0, 2.0, -1.0, 4.0, 6.0, -1.0, 6.0, 10.0];
        let expected: f64 = product.iter().map(|value| value * value).sum();
        assert!((squared_norm_of_product(&a, &b, 2) - expected).abs() < 1e-9);
    }

    #[test]
    fn layers_are_told_from_names() {
        assert_eq!(layer_of("model.layers.12.mlp.up_proj.lora_A.weight"), Some(12));
        assert_eq!(layer_of("model.embed_tokens.weight"), None);
    }
}
