//! Adapters: which modules they train ([`spec`], `saved`), how they start ([`init`]), how they are stored ([`peft`])
//! and how they are folded into a model ([`merge`]).

mod experts;
mod grown;
pub mod init;
pub mod merge;
mod model_card;
mod modules;
mod names;
pub mod peft;
mod peft_config;
mod saved;
pub mod spec;
mod tokens;

use std::collections::BTreeMap;

pub use modules::{LinearModule, ModuleKind, expert_path};
pub use names::{lora_a_name, lora_b_name};
pub use spec::{AdaptedLinear, AdapterSpec, TargetModules};
pub use tokens::{TOKEN_TABLES, TokenRows, token_rows_name};

use crate::error::{Error, Result};
use crate::tensor_file::TensorSpec;

/// What an adapter trains in a model.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Adaptation {
    /// Modules with a LoRA pair, by path.
    pub pairs: BTreeMap<String, AdaptedLinear>,
    /// Shapes of the weights that are trained in full, by name.
    pub saved: BTreeMap<String, Vec<usize>>,
    /// Rows of tables that are trained, by the name of the table's weight.
    pub tokens: BTreeMap<String, TokenRows>,
}

impl FromIterator<(String, AdaptedLinear)> for Adaptation {
    fn from_iter<I: IntoIterator<Item = (String, AdaptedLinear)>>(pairs: I) -> Self {
        Self { pairs: pairs.into_iter().collect(), ..Self::default() }
    }
}

impl Adaptation {
    /// The lowest of `layers` decoder layers with something that is trained: 0 where the token table is, `layers` where
    /// only what lies above them is.
    pub fn lowest_layer(&self, layers: usize) -> usize {
        let of_pair = |module: &AdaptedLinear| match module.kind {
            ModuleKind::Linear | ModuleKind::Experts(_) => module.layer.unwrap_or(layers),
            ModuleKind::Embedding => 0,
        };
        let pairs = self.pairs.values().map(of_pair);
        let whole = self.saved.keys().chain(self.tokens.keys()).map(|name| saved::layer_of(name, layers));
        pairs.chain(whole).min().unwrap_or(layers)
    }

    /// Whether a head that is the token table stops being it: only one of the two is trained, or each by itself. Trained
    /// rows of the table are rows of the head too, unless that has some of its own.
    pub fn unties(&self) -> bool {
        let ends = ["lm_head", "model.embed_tokens"];
        self.tokens.contains_key("lm_head.weight")
            || ends.iter().any(|path| {
                self.pairs.contains_key(*path) || self.saved.contains_key(&format!("{path}.weight"))
            })
    }

    /// Numbers that are trained.
    pub fn parameters(&self) -> usize {
        let of_pair = |module: &AdaptedLinear| {
            let magnitude = if module.dora { module.out_features } else { 0 };
            let pairs = if let ModuleKind::Experts(count) = module.kind { count } else { 1 };
            pairs * module.rank * (module.in_features + module.out_features) + magnitude
        };
        let saved: usize = self.saved.values().map(|shape| shape.iter().product::<usize>()).sum();
        let rows: usize = self.tokens.values().map(|rows| rows.ids.len() * rows.width).sum();
        self.pairs.values().map(of_pair).sum::<usize>() + saved + rows
    }
}

impl AdapterSpec {
    /// Applies the rules to a model with these modules and weights.
    ///
    /// # Errors
    /// A user error as of [`AdapterSpec::resolve`], or for an entry of `modules_to_save` that names no weight.
    pub fn adaptation(&self, modules: &[LinearModule], weights: &[TensorSpec]) -> Result<Adaptation> {
        let saved = self.saved_weights(weights)?;
        let pairs = self.resolve(modules)?.into_iter().map(|module| (module.path.clone(), module)).collect();
        saved::refuse_both(&pairs, &saved)?;
        experts::refuse_saved(modules, &saved)?;
        let tokens = self.token_rows(weights)?;
        match tokens.keys().find(|name| {
            saved.contains_key(*name) || pairs.contains_key(name.trim_end_matches(".weight"))
        }) {
            None => Ok(Adaptation { pairs, saved, tokens }),
            Some(name) => Err(Error::user(format!(
                "single rows of {name} cannot be trained: the whole of it is trained, or carries a LoRA pair"
            ))
            .hint("leave its module out of target_modules and modules_to_save, or name it in modules_to_save alone")),
        }
    }
}

/// A LoRA pair: the layer's output gains `scale * B (A x)`. With DoRA the sum is then scaled by `magnitude / |W + scale B A|`.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraPair {
    pub rank: usize,
    pub in_features: usize,
    pub out_features: usize,
    /// `[rank, in_features]`, row-major; those of all experts one after another.
    pub a: Vec<f32>,
    /// `[out_features, rank]`, row-major; those of all experts one after another.
    pub b: Vec<f32>,
    /// DoRA's length of each output feature's weights, `[out_features]`.
    pub magnitude: Option<Vec<f32>>,
}

impl LoraPair {
    /// A pair at its start, which changes nothing: one side random, the other zero. DoRA's magnitude comes from the
    /// weight ([`init::initial_magnitude`]) and is left out.
    pub fn initial(seed: u64, module: &AdaptedLinear) -> Self {
        let &AdaptedLinear { rank, in_features, out_features, .. } = module;
        let (a, b) = match module.kind {
            ModuleKind::Linear => {
                (init::initial_a(seed, &module.path, rank, in_features), vec![0.0; out_features * rank])
            }
            ModuleKind::Experts(count) => {
                let of_expert =
                    |expert| init::initial_a(seed, &expert_path(&module.path, expert), rank, in_features);
                ((0..count).flat_map(of_expert).collect(), vec![0.0; count * out_features * rank])
            }
            ModuleKind::Embedding => {
                (vec![0.0; rank * in_features], init::normal(seed, &module.b_name(), out_features * rank))
            }
        };
        Self { rank, in_features, out_features, a, b, magnitude: None }
    }
}

/// A weight that is stored with the adapter in full.
#[derive(Debug, Clone, PartialEq)]
pub struct SavedWeight {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// An adapter's values.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AdapterWeights {
    /// By module path.
    pub pairs: BTreeMap<String, LoraPair>,
    /// By the name of the weight; trained rows of a table by [`token_rows_name`].
    pub saved: BTreeMap<String, SavedWeight>,
}
