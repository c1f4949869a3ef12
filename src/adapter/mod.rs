//! LoRA adapters: which layers they adapt ([`spec`]), how they start ([`init`]), how they are stored ([`peft`]) and
//! how they are folded into a model ([`merge`]).

pub mod init;
pub mod merge;
mod model_card;
mod modules;
pub mod peft;
mod peft_config;
pub mod spec;

use std::collections::BTreeMap;

pub use modules::LinearModule;
pub use spec::{AdaptedLinear, AdapterSpec, TargetModules};

/// A LoRA pair: the layer's output gains `scale * B (A x)`.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraPair {
    pub rank: usize,
    pub in_features: usize,
    pub out_features: usize,
    /// `[rank, in_features]`, row-major.
    pub a: Vec<f32>,
    /// `[out_features, rank]`, row-major.
    pub b: Vec<f32>,
}

impl LoraPair {
    /// A pair at its start: random A, zero B.
    pub fn initial(seed: u64, linear: &AdaptedLinear) -> Self {
        Self {
            rank: linear.rank,
            in_features: linear.in_features,
            out_features: linear.out_features,
            a: init::initial_a(seed, &linear.path, linear.rank, linear.in_features),
            b: vec![0.0; linear.out_features * linear.rank],
        }
    }
}

/// An adapter's values by module path.
pub type AdapterWeights = BTreeMap<String, LoraPair>;
