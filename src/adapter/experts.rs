//! Pairs on the experts of a mixture.
//!
//! PEFT with transformers 4 gave each expert's layer a pair of its own, and that is how they are stored. Transformers 5
//! keeps all experts in two parameters, and PEFT then turns such an adapter into pairs on those (`ParamWrapper`): it joins
//! gate and up, and knows one rank and one alpha. What it could not turn is refused here, before anything is trained.

use std::collections::BTreeMap;

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

/// # Errors
/// A user error if experts or their router are trained in full: PEFT knows them by other names.
pub(super) fn refuse_saved(modules: &[LinearModule], saved: &BTreeMap<String, Vec<usize>>) -> Result<()> {
    let blocks = modules.iter().filter(|module| module.experts.is_some());
    for block in blocks.filter_map(|module| Some(module.path.split_once("experts.*.")?.0)) {
        if let Some(name) = saved.keys().find(|name| name.starts_with(block)) {
            return Err(Error::user(format!(
                "modules_to_save takes {name}, which is of a mixture of experts"
            ))
            .hint("PEFT could not load the adapter: adapt the experts with LoRA, or write longer names"));
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn modules() -> Vec<LinearModule> {
        let module = |path: &str, layer, experts| LinearModule {
            path: format!("model.layers.{layer}.{path}"),
            layer: Some(layer),
            in_features: 3,
            out_features: 2,
            experts,
        };
        let of_layer = |layer| {
            let experts = ["gate_proj", "up_proj", "down_proj"];
            let experts = experts.map(|name| module(&format!("mlp.experts.*.{name}"), layer, Some(4)));
            std::iter::once(module("self_attn.q_proj", layer, None)).chain(experts)
        };
        (0..2).flat_map(of_layer).collect()
    }

    fn spec(names: &[&str]) -> AdapterSpec {
        AdapterSpec {
            r: 2,
            alpha: 4.0,
            dropout: 0.0,
            use_rslora: false,
            use_dora: false,
            target_modules: TargetModules::List(names.iter().map(|&name| name.to_owned()).collect()),
            layers_to_transform: None,
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
            modules_to_save: Vec::new(),
            trainable_token_indices: BTreeMap::new(),
        }
    }

    const ALL: [&str; 4] = ["q_proj", "gate_proj", "up_proj", "down_proj"];

    #[test]
    fn experts_are_adapted_together() {
        let adapted = spec(&ALL).resolve(&modules()).unwrap();
        assert_eq!(adapted.len(), 8);
        assert_eq!(
            adapted,
            AdapterSpec { target_modules: TargetModules::AllLinear, ..spec(&[]) }
                .resolve(&modules())
                .unwrap()
        );
        assert_eq!(adapted[1].kind, ModuleKind::Experts(4));
        assert_eq!(adapted[1].stored()[3].a_name(), "model.layers.0.mlp.experts.3.gate_proj.lora_A.weight");
        assert_eq!(adapted[1].expert_at("model.layers.0.mlp.experts.3.gate_proj"), Some(3));
        for stranger in ["4.gate_proj", "3.up_proj", "x.gate_proj", ".gate_proj"] {
            assert_eq!(adapted[1].expert_at(&format!("model.layers.0.mlp.experts.{stranger}")), None);
        }
        let adaptation = spec(&ALL).adaptation(&modules(), &[]).unwrap();
        assert_eq!(adaptation.parameters(), 2 * (1 + 3 * 4) * 2 * 5);
    }

    #[test]
    fn what_peft_could_not_load_is_refused() {
        let refused = |spec: AdapterSpec| spec.resolve(&modules()).unwrap_err().to_string();
        assert!(refused(spec(&["gate_proj", "up_proj"])).contains("down_proj has none"));
        assert!(refused(spec(&["down_proj"])).contains("gate_proj has none"));
        let all = || spec(&ALL);
        assert!(refused(AdapterSpec { dropout: 0.1, ..all() }).contains("dropout"));
        assert!(refused(AdapterSpec { use_dora: true, ..all() }).contains("use_dora"));
        assert!(refused(AdapterSpec { use_rslora: true, ..all() }).contains("use_rslora"));
        let rank_pattern = BTreeMap::from([("up_proj".to_owned(), 3)]);
        assert!(refused(AdapterSpec { rank_pattern, ..all() }).contains("rank_pattern"));
        let target_modules = TargetModules::Regex(".*".to_owned());
        assert!(refused(AdapterSpec { target_modules, ..all() }).contains("pattern"));
        assert!(refused(AdapterSpec { layers_to_transform: Some(vec![1]), ..all() }).contains("layers.0"));
        assert!(spec(&["q_proj"]).resolve(&modules()).is_ok());
        assert!(
            AdapterSpec { rank_pattern: BTreeMap::from([("q_proj".to_owned(), 3)]), ..all() }
                .resolve(&modules())
                .is_ok()
        );
    }

    #[test]
    fn experts_are_not_trained_in_full() {
        let weights = ["model.layers.0.mlp.gate.weight", "model.layers.0.mlp.experts.1.up_proj.weight"];
        let weights = weights.map(|name| crate::tensor_file::TensorSpec::new(name, &[1]));
        for entry in ["gate", "up_proj", "experts"] {
            let spec = AdapterSpec { modules_to_save: vec![entry.to_owned()], ..spec(&["q_proj"]) };
            let error = spec.adaptation(&modules(), &weights).unwrap_err().to_string();
            assert!(error.contains("modules_to_save takes"), "{error}");
        }
    }
}
