//! `[adapter]`: what is trained. Names are PEFT's.

use super::values::TextOrList;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What is trained: a LoRA adapter over frozen weights, or all weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdapterSection {
    /// "lora" trains an adapter; "full" trains every weight, at 16 bytes a parameter (weight, gradient, two moments).
    pub method: Method,
    /// LoRA rank. Adapter size, gradients and optimizer state grow linearly with it.
    #[schemars(range(min = 1, max = 4096))]
    pub r: usize,
    /// LoRA scale: the adapter's output is multiplied by alpha / r. Costs nothing.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub alpha: f64,
    /// Probability of zeroing an element of the adapter's input while training; above 0 it costs a mask per module.
    #[schemars(extend("minimum" = 0, "exclusiveMaximum" = 1))]
    pub dropout: f64,
    /// Scale by alpha / sqrt(r) instead of alpha / r, which keeps high ranks stable.
    pub use_rslora: bool,
    /// Train the length of each output feature's weights apart from their direction (DoRA), for a slower step.
    pub use_dora: bool,
    /// "all-linear" (every linear layer but the head), a list of module names, or one regex over full module paths.
    pub target_modules: TargetModules,
    /// Indices of the decoder layers to adapt; without it, all. Layers below the lowest need no backward pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<usize>", length(min = 1))]
    pub layers_to_transform: Option<Vec<usize>>,
    /// Ranks of single modules: a regex that ends a module path, and its rank instead of r.
    #[schemars(extend("additionalProperties" = {"type": "integer", "minimum": 1, "maximum": 4096}))]
    pub rank_pattern: BTreeMap<String, usize>,
    /// Alphas of single modules: a regex that ends a module path, and its alpha.
    #[schemars(extend("additionalProperties" = {"type": "number", "exclusiveMinimum": 0}))]
    pub alpha_pattern: BTreeMap<String, f64>,
    /// Modules that are trained in full and stored with the adapter, such as ["lm_head"]: 16 bytes a parameter.
    pub modules_to_save: Vec<String>,
    /// Folder of an existing PEFT adapter to continue from, relative to this file. It decides the keys above.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub init: Option<PathBuf>,
    /// The keys that are written down beside `init`; the adapter there must agree with them, but for `dropout`.
    #[serde(skip)]
    pub given: Vec<&'static str>,
}

/// The keys that `init` stands for where they are not written down: an existing adapter knows them.
pub const KNOWN_TO_INIT: [&str; 10] = [
    "r",
    "alpha",
    "dropout",
    "use_rslora",
    "use_dora",
    "target_modules",
    "layers_to_transform",
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
];

impl Default for AdapterSection {
    fn default() -> Self {
        Self {
            method: Method::Lora,
            r: 8,
            alpha: 16.0,
            dropout: 0.0,
            use_rslora: false,
            use_dora: false,
            target_modules: TargetModules::AllLinear,
            layers_to_transform: None,
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
            modules_to_save: Vec::new(),
            init: None,
            given: Vec::new(),
        }
    }
}

/// Which weights are trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Method {
    Lora,
    Full,
}

/// Modules that get an adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "TextOrList", into = "TextOrList")]
pub enum TargetModules {
    /// Every linear layer but the output head.
    AllLinear,
    /// Module names; each matches itself and every path that ends in `.name`.
    List(Vec<String>),
    /// A regex that must match the full module path.
    Regex(String),
}

impl From<TextOrList> for TargetModules {
    fn from(value: TextOrList) -> Self {
        match value {
            TextOrList::Text(text) if text == "all-linear" => Self::AllLinear,
            TextOrList::Text(text) => Self::Regex(text),
            TextOrList::List(names) => Self::List(names),
        }
    }
}

impl From<TargetModules> for TextOrList {
    fn from(value: TargetModules) -> Self {
        match value {
            TargetModules::AllLinear => Self::Text("all-linear".to_owned()),
            TargetModules::Regex(text) => Self::Text(text),
            TargetModules::List(names) => Self::List(names),
        }
    }
}

impl JsonSchema for TargetModules {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        TextOrList::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        TextOrList::json_schema(generator)
    }
}
