//! Rotary frequencies and their scalings for long contexts.

use std::f64::consts::TAU;

use super::{RopeConfig, RopeScaling};

/// Radians per position for each of the head_dim / 2 pairs: theta^(-2i / head_dim), scaled.
pub fn frequencies(rope: &RopeConfig, head_dim: usize) -> Vec<f64> {
    let base = |pair: usize| rope.theta.powf(-2.0 * pair as f64 / head_dim as f64);
    (0..head_dim / 2).map(|pair| scale(base(pair), &rope.scaling)).collect()
}

fn scale(frequency: f64, scaling: &RopeScaling) -> f64 {
    match *scaling {
        RopeScaling::None => frequency,
        RopeScaling::Linear { factor } => frequency / factor,
        // Long wavelengths are stretched, short ones kept, and those between are blended: as in Hugging Face's
        // modeling_rope_utils.
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => {
            let turns = original_max_position_embeddings as f64 * frequency / TAU;
            let kept = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
            frequency * kept + frequency / factor * (1.0 - kept)
        }
    }
}
