//! SmolLM3: every fourth layer has no positions (Yang et al. 2025, arXiv:2501.18795).

use super::{Family, GgufLayout, biases, windows};
use crate::error::Error;
use crate::model::Architecture;

/// One layer of so many has no positions where config.json does not say.
const INTERVAL: usize = 4;

pub const FAMILY: Family = Family {
    architecture: Architecture::SmolLm3,
    name: "SmolLM3",
    class: "SmolLM3ForCausalLM",
    model_type: "smollm3",
    gguf: Some(GgufLayout { architecture: "smollm3", interleaved_heads: true, fields: &[], complete: None }),
    fields: "attention_bias mlp_bias no_rope_layers no_rope_layer_interval use_sliding_window sliding_window \
        max_window_layers layer_types pretraining_tp",
    tied_head: true,
    notes: "layers without positions; rope scaling: yarn",
    describe: |fields, _, spec| {
        biases(fields, spec)?;
        let interval = fields.size("no_rope_layer_interval")?.unwrap_or(INTERVAL);
        // 1 where a layer has positions.
        let given = fields.sizes("no_rope_layers")?;
        if given.as_ref().is_some_and(|given| given.len() < spec.layers()) || interval == 0 {
            return Err(Error::data("no_rope_layers does not name every layer"));
        }
        let rotates = |layer: usize| match &given {
            Some(given) => given[layer] != 0,
            None => !(layer + 1).is_multiple_of(interval),
        };
        for (layer, attention) in spec.layer_attention.iter_mut().enumerate() {
            attention.rope = rotates(layer).then_some(0);
        }
        windows::set_where_used(fields, spec, &|layer| !rotates(layer))
    },
};
