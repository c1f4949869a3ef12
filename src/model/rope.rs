//! Rotary frequencies and their scalings for long contexts.

use std::f64::consts::{PI, TAU};

use super::{RopeConfig, RopeScaling, YarnScaling};

/// What a layer rotates queries and keys by.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeSpec {
    /// Radians per position for each rotated pair, after scaling. Where they are fewer than head_dim / 2, the rest of
    /// each head stays as it is.
    pub frequencies: Vec<f64>,
    /// Multiplies cosines and sines.
    pub magnitude: f64,
    /// The frequencies of a batch that reaches beyond the original context, where they are others.
    pub beyond: Option<Beyond>,
}

/// Frequencies beyond a context.
#[derive(Debug, Clone, PartialEq)]
pub struct Beyond {
    /// Tokens.
    pub context: usize,
    pub frequencies: Vec<f64>,
}

impl RopeSpec {
    /// Rotates the first `rotated` features of each head: pair i by theta^(-2i / rotated), scaled.
    pub fn new(rope: &RopeConfig, rotated: usize) -> Self {
        let exponent = |pair: usize| -2.0 * pair as f64 / rotated as f64;
        let base = (0..rotated / 2).map(|pair| (pair, rope.theta.powf(exponent(pair))));
        let ramp = match &rope.scaling {
            RopeScaling::Yarn(yarn) => yarn.range(rope.theta, rotated),
            RopeScaling::None
            | RopeScaling::Linear { .. }
            | RopeScaling::Llama3 { .. }
            | RopeScaling::LongRope(_) => (0.0, 0.0),
        };
        let magnitude = match &rope.scaling {
            RopeScaling::Yarn(yarn) => yarn.attention_factor,
            RopeScaling::LongRope(long) => long.attention_factor,
            RopeScaling::None | RopeScaling::Linear { .. } | RopeScaling::Llama3 { .. } => 1.0,
        };
        let beyond = match &rope.scaling {
            RopeScaling::LongRope(long) => Some(Beyond {
                context: long.original_max_position_embeddings,
                frequencies: divided(base.clone().map(|(_, frequency)| frequency), &long.long_factor),
            }),
            RopeScaling::None
            | RopeScaling::Linear { .. }
            | RopeScaling::Llama3 { .. }
            | RopeScaling::Yarn(_) => None,
        };
        let frequencies = base.map(|(pair, frequency)| scale(frequency, &rope.scaling, pair, ramp)).collect();
        Self { frequencies, magnitude, beyond }
    }
}

fn divided(frequencies: impl Iterator<Item = f64>, factors: &[f64]) -> Vec<f64> {
    frequencies.zip(factors).map(|(frequency, factor)| frequency / factor).collect()
}

fn scale(frequency: f64, scaling: &RopeScaling, pair: usize, (low, high): (f64, f64)) -> f64 {
    match *scaling {
        RopeScaling::None => frequency,
        RopeScaling::LongRope(ref long) => frequency / long.short_factor.get(pair).copied().unwrap_or(1.0),
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
        RopeScaling::Yarn(YarnScaling { factor, .. }) => {
            let stretched = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
            frequency * (1.0 - stretched) + frequency / factor * stretched
        }
    }
}

impl YarnScaling {
    /// The pairs between which frequencies go from kept to stretched (Peng et al. 2023, arXiv:2309.00071, section 3.2):
    /// those that turn `beta_fast` and `beta_slow` times in the original context.
    fn range(&self, theta: f64, rotated: usize) -> (f64, f64) {
        let context = self.original_max_position_embeddings as f64;
        let pair_that_turns =
            |turns: f64| rotated as f64 * (context / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln());
        let (mut low, mut high) = (pair_that_turns(self.beta_fast), pair_that_turns(self.beta_slow));
        if self.truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        let (low, high) = (low.max(0.0), high.min(rotated as f64 - 1.0));
        // An empty ramp is a step.
        (low, if low == high { high + 0.001 } else { high })
    }

    /// What cosines and sines are multiplied by where config.json doesn't say: 0.1 ln(factor) + 1, or the ratio of two
    /// of these.
    pub(super) fn inferred_factor(factor: f64, mscale: Option<f64>, mscale_all_dim: Option<f64>) -> f64 {
        let magnitude = |weight: f64| if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 };
        let given = |value: Option<f64>| value.filter(|&value| value != 0.0);
        match (given(mscale), given(mscale_all_dim)) {
            (Some(mscale), Some(all)) => magnitude(mscale) / magnitude(all),
            _ => magnitude(1.0),
        }
    }
}
