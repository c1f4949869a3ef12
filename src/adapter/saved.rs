//! `modules_to_save`: modules that are trained in full beside the LoRA pairs, found by PEFT's rules.

use std::collections::BTreeMap;

use super::{AdaptedLinear, AdapterSpec};
use crate::error::{Error, Result};
use crate::tensor_file::TensorSpec;

impl AdapterSpec {
    /// The weights among `weights` that `modules_to_save` names, with their shapes.
    ///
    /// PEFT takes every module whose path ends with an entry, wherever in a name that end begins, and all weights below
    /// it: "norm" is also every `input_layernorm`.
    ///
    /// # Errors
    /// A user error for an entry that no module ends with.
    pub(super) fn saved_weights(&self, weights: &[TensorSpec]) -> Result<BTreeMap<String, Vec<usize>>> {
        let mut saved = BTreeMap::new();
        for entry in &self.modules_to_save {
            let named = |weight: &&TensorSpec| modules_above(&weight.name).any(|path| path.ends_with(entry));
            let matched: Vec<_> = weights.iter().filter(named).collect();
            if entry.is_empty() || matched.is_empty() {
                return Err(nothing_matched(entry, weights));
            }
            saved.extend(matched.into_iter().map(|weight| (weight.name.clone(), weight.shape.clone())));
        }
        Ok(saved)
    }

    /// Whether PEFT gives the module at `path` no pair because it, or a module around it, is trained in full.
    pub(super) fn saves(&self, path: &str) -> bool {
        let path = format!(".{path}.");
        self.modules_to_save.iter().any(|entry| path.contains(&format!(".{entry}.")))
    }
}

/// The paths of the module that holds a weight and of the modules around it, innermost first.
fn modules_above(weight: &str) -> impl Iterator<Item = &str> {
    let module = weight.rsplit_once('.').map(|(module, _)| module);
    std::iter::successors(module, |path| path.rsplit_once('.').map(|(outer, _)| outer))
}

/// The decoder layer that holds a weight: 0 for the token table, `layers` for what lies above all of them.
pub(super) fn layer_of(weight: &str, layers: usize) -> usize {
    let below = weight.split('.').skip_while(|&part| part != "layers").nth(1);
    let above = if weight.contains("embed_tokens") { 0 } else { layers };
    below.and_then(|layer| layer.parse().ok()).unwrap_or(above)
}

pub(super) fn refuse_both(
    pairs: &BTreeMap<String, AdaptedLinear>,
    saved: &BTreeMap<String, Vec<usize>>,
) -> Result<()> {
    match pairs.keys().find(|path| saved.contains_key(&format!("{path}.weight"))) {
        None => Ok(()),
        Some(path) => Err(Error::user(format!("{path} is in target_modules and in modules_to_save"))
            .hint("a module carries a LoRA pair or is trained in full; name it in one of the two, by its whole name")),
    }
}

fn nothing_matched(entry: &str, weights: &[TensorSpec]) -> Error {
    let mut names: Vec<&str> =
        weights.iter().filter_map(|weight| modules_above(&weight.name).next()?.rsplit('.').next()).collect();
    names.sort_unstable();
    names.dedup();
    Error::user(format!("modules_to_save: {entry:?} is no module of the model"))
        .hint(format!("the model's modules with weights are {}", names.join(", ")))
}
