//! Pairs on the experts of a mixture.
//!
//! PEFT with transformers 4 gave each expert's layer a pair of its own, and that is how they are stored. Transformers 5
//! keeps all experts in two parameters, and PEFT then turns such an adapter into pairs on those (`ParamWrapper`): it joins
//! gate and up, and knows one rank and one alpha. What it could not turn is refused here, before anything is trained.

use super::{AdaptedLinear, AdapterSpec, LinearModule, LoraPair, ModuleKind, TargetModules, expert_path};
use crate::error::{Error, Result};

impl AdapterSpec {
    /// # Errors
    /// A user error where experts are adapted in a way that PEFT cannot load.
    pub(super) fn check_experts(&self, modules: &[LinearModule], adapted: &[AdaptedLinear]) -> Result<()> {
        let is_expert = |layer: &&AdaptedLinear| matches!(layer.kind, ModuleKind::Experts(_));
        let Some(first) = adapted.iter().find(is_expert) else { return Ok(()) };
        let unlike =
            adapted.iter().filter(is_expert).any(|layer| layer.rank != self.r || layer.alpha != self.alpha);
        let refused = [
            (self.dropout > 0.0, "dropout", "set adapter.dropout = 0"),
            (self.use_dora, "use_dora", "use plain LoRA"),
            (self.use_rslora, "use_rslora", "multiply alpha by sqrt(r) instead"),
            (unlike, "rank_pattern or alpha_pattern", "give experts the rank and the alpha of the adapter"),
            (
                matches!(self.target_modules, TargetModules::Regex(_)),
                "a pattern in target_modules",
                "list the names of the layers, or use \"all-linear\"",
            ),
        ];
        if let Some((_, what, hint)) = refused.into_iter().find(|(applies, ..)| *applies) {
            return Err(Error::user(format!(
                "{what} does not work with adapters on experts ({})",
                first.path
            ))
            .hint(format!("PEFT could not load the adapter: {hint}, or leave the experts out")));
        }
        let missing = modules
            .iter()
            .filter(|module| module.experts.is_some())
            .find(|module| !adapted.iter().any(|layer| layer.path == module.path));
        match missing {
            None => Ok(()),
            Some(module) => Err(Error::user(format!("{} has an adapter and {} has none", first.path, module.path))
                .hint("PEFT could not load the adapter: adapt all projections of the experts in all layers, or none")),
        }
    }
}

impl AdaptedLinear {
    /// The layers that are stored by themselves: this one, or that of each expert.
    pub fn stored(&self) -> Vec<Self> {
        let ModuleKind::Experts(count) = self.kind else { return vec![self.clone()] };
        let of_expert = |expert| Self { path: expert_path(&self.path, expert), ..self.clone() };
        (0..count).map(of_expert).collect()
    }

    /// Which expert's layer a path names, where this is a layer of experts.
    pub fn expert_at(&self, path: &str) -> Option<usize> {
        let ModuleKind::Experts(count) = self.kind else { return None };
        let (before, after) = self.path.split_once('*')?;
        let number = path.strip_prefix(before)?.strip_suffix(after)?;
        number.parse().ok().filter(|&expert| expert < count)
    }
}

impl LoraPair {
    /// The pair of one expert.
    pub fn of_expert(&self, expert: usize) -> Self {
        let part = |values: &[f32], length: usize| values[expert * length..(expert + 1) * length].to_vec();
        let &Self { rank, in_features, out_features, .. } = self;
        let (a, b) = (part(&self.a, rank * in_features), part(&self.b, out_features * rank));
        Self { rank, in_features, out_features, a, b, magnitude: None }
    }
}
