//! Qwen 2 and 2.5 (Yang et al. 2024, arXiv:2407.10671): biases on queries, keys and values.

use super::{Family, GgufLayout, windows};
use crate::model::Architecture;

/// The first layer that slides where config.json does not say.
const MAX_WINDOW_LAYERS: usize = 28;

pub const FAMILY: Family = Family {
    architecture: Architecture::Qwen2,
    name: "Qwen 2, 2.5",
    class: "Qwen2ForCausalLM",
    model_type: "qwen2",
    gguf: Some(GgufLayout { architecture: "qwen2", interleaved_heads: false, fields: &[], complete: None }),
    fields: "use_sliding_window sliding_window max_window_layers layer_types",
    tied_head: false,
    notes: "bias on q, k and v; rope scaling: yarn",
    describe: |fields, _, spec| {
        spec.query_key_value_bias = true;
        let first = fields.size("max_window_layers")?.unwrap_or(MAX_WINDOW_LAYERS);
        windows::set_where_used(fields, spec, &|layer| layer >= first)
    },
};
