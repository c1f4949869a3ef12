//! Llama 2 and 3, SmolLM2 and their relatives (Touvron et al. 2023, arXiv:2302.13971).

use super::{Family, GgufLayout, biases};
use crate::model::Architecture;

pub const FAMILY: Family = Family {
    architecture: Architecture::Llama,
    name: "Llama 2, 3.x, SmolLM2, TinyLlama",
    class: "LlamaForCausalLM",
    model_type: "llama",
    gguf: Some(GgufLayout { architecture: "llama", interleaved_heads: true, fields: &[], complete: None }),
    fields: "attention_bias mlp_bias",
    tied_head: false,
    notes: "rope scaling: linear, llama3, yarn",
    describe: |fields, _, spec| biases(fields, spec),
};
