//! OLMo 2 (OLMo Team 2025, arXiv:2501.00656): norms behind attention and feed-forward, and on all of q and of k.

use super::{Family, GgufLayout, biases};
use crate::model::{Architecture, HeadNorm, NormPlacement};

pub const FAMILY: Family = Family {
    architecture: Architecture::Olmo2,
    name: "OLMo 2",
    class: "Olmo2ForCausalLM",
    model_type: "olmo2",
    gguf: Some(GgufLayout { architecture: "olmo2", interleaved_heads: false, fields: &[], complete: None }),
    fields: "attention_bias",
    tied_head: false,
    notes: "norms behind each block, and on q and k",
    describe: |fields, _, spec| {
        biases(fields, spec)?;
        spec.norms = NormPlacement::After;
        spec.head_norm = HeadNorm::AllHeads;
        Ok(())
    },
};
