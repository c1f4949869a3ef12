//! Weights for training from scratch.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::config::ModelConfig;
use crate::adapter::init::{named_stream, uniform};

/// Standard deviation of matrices and embeddings: `initializer_range` of the Llama family.
const DEVIATION: f64 = 0.02;

/// Random weights in f32, a pure function of the seed and each tensor's name.
#[derive(Debug)]
pub struct RandomInit {
    path: PathBuf,
    seed: u64,
    shapes: BTreeMap<String, Vec<usize>>,
    /// What a norm's weight is where it multiplies by 1.
    neutral_norm: f32,
}

impl RandomInit {
    /// `path` is the file that describes the model, named in messages.
    pub fn new(config: &ModelConfig, seed: u64, path: &Path) -> Self {
        let shapes = config.tensor_specs().into_iter().map(|spec| (spec.name, spec.shape)).collect();
        let neutral_norm = if config.decoder.norms_from_one { 0.0 } else { 1.0 };
        Self { path: path.to_path_buf(), seed, shapes, neutral_norm }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.shapes.keys().cloned().collect()
    }

    pub(super) fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.shapes.get(name).cloned()
    }

    /// Norm weights are neutral, biases zero, everything else normal(0, 0.02).
    pub(super) fn fill(&self, name: &str, out: &mut [f32]) {
        if name.ends_with("norm.weight") {
            return out.fill(self.neutral_norm);
        }
        if name.ends_with(".bias") {
            return out.fill(0.0);
        }
        let mut stream = named_stream(self.seed, name);
        for pair in out.chunks_mut(2) {
            // Box-Muller: two uniform numbers give two normal ones; 1 - u keeps the logarithm finite.
            let radius = (-2.0 * (1.0 - f64::from(uniform(&mut stream))).ln()).sqrt() * DEVIATION;
            let angle = std::f64::consts::TAU * f64::from(uniform(&mut stream));
            for (value, direction) in pair.iter_mut().zip([angle.cos(), angle.sin()]) {
                *value = (radius * direction) as f32;
            }
        }
    }
}
