//! Which layers an adapter adapts, with which rank and scale: PEFT's rules.

use std::collections::BTreeMap;

use regex::Regex;

use super::{LinearModule, ModuleKind};
use crate::error::{Error, Result};

/// Which linear layers get a LoRA pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetModules {
    /// Every linear layer but the output head.
    AllLinear,
    /// Exact paths, or last parts of paths (`q_proj`, `self_attn.q_proj`).
    List(Vec<String>),
    /// A regular expression that must match the whole path.
    Regex(String),
}

/// A LoRA adapter before it meets a model.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterSpec {
    pub r: usize,
    pub alpha: f64,
    pub dropout: f64,
    /// Scale by alpha / sqrt(r) instead of alpha / r.
    pub use_rslora: bool,
    /// Train the length of each output feature's weights apart from their direction (Liu et al. 2024, arXiv:2402.09353).
    pub use_dora: bool,
    pub target_modules: TargetModules,
    /// Only these decoder layers; `None` is all of them.
    pub layers_to_transform: Option<Vec<usize>>,
    /// Rank by module, keyed by a pattern on the end of the path.
    pub rank_pattern: BTreeMap<String, usize>,
    /// Alpha by module, keyed like `rank_pattern`.
    pub alpha_pattern: BTreeMap<String, f64>,
    /// Modules that are trained in full: paths, or ends of paths.
    pub modules_to_save: Vec<String>,
    /// Tokens whose rows are trained, by module: `embed_tokens`, `lm_head`.
    pub trainable_token_indices: BTreeMap<String, Vec<usize>>,
}

/// A linear layer, or the token table, with the adapter that it gets.
#[derive(Debug, Clone, PartialEq)]
pub struct AdaptedLinear {
    pub path: String,
    pub kind: ModuleKind,
    pub layer: Option<usize>,
    pub in_features: usize,
    pub out_features: usize,
    pub rank: usize,
    pub alpha: f64,
    /// Factor on B x A: alpha / rank, or alpha / sqrt(rank) with rsLoRA.
    pub scale: f64,
    pub dropout: f64,
    pub dora: bool,
}

impl AdapterSpec {
    /// Applies the rules to a model's modules, keeping their order.
    ///
    /// Rules that match nothing, a bad pattern, or a rank, alpha or dropout out of range are user errors.
    pub fn resolve(&self, modules: &[LinearModule]) -> Result<Vec<AdaptedLinear>> {
        self.check_values()?;
        let target = Target::new(&self.target_modules)?;
        let ranks = patterns("rank_pattern", &self.rank_pattern)?;
        let alphas = patterns("alpha_pattern", &self.alpha_pattern)?;
        let mut adapted = Vec::new();
        let wanted = |module: &&LinearModule| {
            self.transforms_layer(module) && target.matches(module) && !self.saves(&module.path)
        };
        for module in modules.iter().filter(wanted) {
            let rank = lookup(&ranks, &module.path).unwrap_or(self.r);
            let alpha = lookup(&alphas, &module.path).unwrap_or(self.alpha);
            let divisor = if self.use_rslora { (rank as f64).sqrt() } else { rank as f64 };
            adapted.push(AdaptedLinear {
                path: module.path.clone(),
                kind: module.kind(),
                layer: module.layer,
                in_features: module.in_features,
                out_features: module.out_features,
                rank,
                alpha,
                scale: alpha / divisor,
                dropout: self.dropout,
                dora: self.use_dora,
            });
        }
        self.check_experts(modules, &adapted)?;
        if adapted.is_empty() { Err(self.nothing_matched(modules)) } else { Ok(adapted) }
    }

    fn transforms_layer(&self, module: &LinearModule) -> bool {
        let Some(layers) = &self.layers_to_transform else { return true };
        module.layer.is_some_and(|layer| layers.contains(&layer))
    }

    fn check_values(&self) -> Result<()> {
        for (&rank, key) in
            std::iter::once((&self.r, "r")).chain(self.rank_pattern.iter().map(|(k, r)| (r, &**k)))
        {
            if !(1..=65_536).contains(&rank) {
                return Err(Error::user(format!("adapter rank {key} = {rank} is not between 1 and 65536")));
            }
        }
        for (&alpha, key) in
            std::iter::once((&self.alpha, "alpha")).chain(self.alpha_pattern.iter().map(|(k, a)| (a, &**k)))
        {
            if !(alpha.is_finite() && alpha > 0.0) {
                return Err(Error::user(format!("adapter {key} = {alpha} is not a positive number")));
            }
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::user(format!("adapter dropout {} is not in 0 <= dropout < 1", self.dropout)));
        }
        Ok(())
    }

    fn nothing_matched(&self, modules: &[LinearModule]) -> Error {
        let mut names: Vec<_> = modules.iter().map(LinearModule::name).collect();
        names.sort_unstable();
        names.dedup();
        let layers = modules.iter().filter_map(|module| module.layer).max().map_or(0, |last| last + 1);
        let mut message = format!("target_modules {} matches no layer of the model", self.target_modules);
        if let Some(wanted) = &self.layers_to_transform {
            message += &format!(" in layers_to_transform {wanted:?}");
        }
        Error::user(message).hint(format!(
            "the model's linear layers are {}, in {layers} decoder layers; a regex must match a whole path like {}",
            names.join(", "),
            modules.first().map_or("", |module| module.path.as_str())
        ))
    }
}

impl AdaptedLinear {
    /// Shape of the module's own weight.
    pub fn weight_dims(&self) -> [usize; 2] {
        match self.kind {
            ModuleKind::Linear | ModuleKind::Experts(_) => [self.out_features, self.in_features],
            ModuleKind::Embedding => [self.in_features, self.out_features],
        }
    }
}

impl std::fmt::Display for TargetModules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AllLinear => f.write_str("\"all-linear\""),
            Self::List(names) => write!(f, "{names:?}"),
            Self::Regex(pattern) => write!(f, "{pattern:?}"),
        }
    }
}

enum Target<'a> {
    AllLinear,
    List(&'a [String]),
    Regex(Regex),
}

impl<'a> Target<'a> {
    fn new(target: &'a TargetModules) -> Result<Self> {
        Ok(match target {
            TargetModules::AllLinear => Self::AllLinear,
            TargetModules::List(names) => Self::List(names),
            TargetModules::Regex(pattern) => Self::Regex(full_match("target_modules", pattern, pattern)?),
        })
    }

    fn matches(&self, module: &LinearModule) -> bool {
        match self {
            Self::AllLinear => module.is_inner_linear(),
            Self::List(names) => names.iter().any(|name| {
                module
                    .path
                    .strip_suffix(name.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }),
            Self::Regex(regex) => regex.is_match(&module.path),
        }
    }
}

fn full_match(key: &str, shown: &str, pattern: &str) -> Result<Regex> {
    Regex::new(&format!("^(?:{pattern})$")).map_err(|error| {
        Error::user(format!("{key}: {shown:?} is not a valid regular expression: {error}"))
            .hint("lookarounds and back-references are not supported")
    })
}

/// PEFT matches each key as `(.*\.)?(KEY)$` against the start of the path.
fn patterns<T: Copy>(key: &str, map: &BTreeMap<String, T>) -> Result<Vec<(Regex, T)>> {
    map.iter()
        .map(|(pattern, &value)| Ok((full_match(key, pattern, &format!(r"(.*\.)?({pattern})"))?, value)))
        .collect()
}

fn lookup<T: Copy>(patterns: &[(Regex, T)], path: &str) -> Option<T> {
    patterns.iter().find(|(regex, _)| regex.is_match(path)).map(|&(_, value)| value)
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
