//! `[optimizer]`: AdamW with decoupled weight decay and global-norm clipping.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The optimizer: 8 bytes of state for every trained parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerSection {
    /// Only "adamw": decoupled weight decay, state in f32.
    pub name: OptimizerName,
    /// Highest learning rate of the schedule. LoRA takes about ten times that of full training.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub learning_rate: f64,
    /// Decay rates of the first and second moment.
    #[schemars(with = "[f64; 2]", extend("items" = {"type": "number", "minimum": 0, "exclusiveMaximum": 1}))]
    pub betas: (f64, f64),
    /// Added to the root of the second moment.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub eps: f64,
    /// Share of a weight that learning_rate takes off each step; biases and norms are exempt.
    #[schemars(range(min = 0))]
    pub weight_decay: f64,
    /// Gradients are scaled down to this global norm; 0 turns clipping off.
    #[schemars(range(min = 0))]
    pub max_grad_norm: f64,
}

impl Default for OptimizerSection {
    fn default() -> Self {
        Self {
            name: OptimizerName::Adamw,
            learning_rate: 2e-4,
            betas: (0.9, 0.999),
            eps: 1e-8,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
        }
    }
}

/// The optimizers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum OptimizerName {
    Adamw,
}
