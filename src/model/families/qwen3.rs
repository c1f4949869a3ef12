//! Qwen 3 (Yang et al. 2025, arXiv:2505.09388): a norm on each head's queries and keys, and no biases.

use super::{Family, GgufLayout, biases, require_head_dim, windows};
use crate::model::{Architecture, HeadNorm};

/// The first layer that slides where config.json does not say.
const MAX_WINDOW_LAYERS: usize = 28;

pub const FAMILY: Family = Family {
    architecture: Architecture::Qwen3,
    name: "Qwen 3",
    class: "Qwen3ForCausalLM",
    model_type: "qwen3",
    gguf: Some(GgufLayout { architecture: "qwen3", interleaved_heads: false, fields: &[], complete: None }),
    fields: "attention_bias use_sliding_window sliding_window max_window_layers layer_types",
    tied_head: false,
    notes: "norms on q and k; rope scaling: yarn",
    describe: |fields, _, spec| {
        biases(fields, spec)?;
        require_head_dim(fields)?;
        spec.head_norm = HeadNorm::EachHead;
        let first = fields.size("max_window_layers")?.unwrap_or(MAX_WINDOW_LAYERS);
        windows::set_where_used(fields, spec, &|layer| layer >= first)
    },
};
