//! Gemma 2 (Gemma Team 2024, arXiv:2408.00118): norms around each block, soft caps, every other layer slides.

use super::gemma::{common, complete_query_scalar};
use super::{Family, GgufLayout, windows};
use crate::model::Architecture;

/// What transformers takes where config.json has no value.
const WINDOW: usize = 4096;

pub const FAMILY: Family = Family {
    architecture: Architecture::Gemma2,
    name: "Gemma 2",
    class: "Gemma2ForCausalLM",
    model_type: "gemma2",
    gguf: Some(GgufLayout {
        architecture: "gemma2",
        interleaved_heads: false,
        fields: &[
            ("attn_logit_softcapping", "attn_logit_softcapping"),
            ("final_logit_softcapping", "final_logit_softcapping"),
            ("attention.sliding_window", "sliding_window"),
        ],
        complete: Some(complete_query_scalar),
    }),
    fields: "attention_bias hidden_act hidden_activation query_pre_attn_scalar sliding_window layer_types \
        attn_logit_softcapping final_logit_softcapping cache_implementation sliding_window_size",
    tied_head: true,
    notes: "soft caps, sliding window in every other layer",
    describe: |fields, _, spec| {
        common(fields, spec)?;
        let cap = |name: &str, otherwise| {
            if fields.0.contains_key(name) { fields.number(name) } else { Ok(Some(otherwise)) }
        };
        spec.attention_soft_cap = cap("attn_logit_softcapping", 50.0)?;
        spec.logits_soft_cap = cap("final_logit_softcapping", 30.0)?;
        let window = fields.size("sliding_window")?.unwrap_or(WINDOW);
        windows::set(fields, spec, Some(window), &|layer| layer.is_multiple_of(2)).map(|_| ())
    },
};
