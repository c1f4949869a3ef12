//! Gemma 2 (Gemma Team 2024, arXiv:2408.00118): norms around each block, soft caps, every other layer slides.

use serde_json::{Map, Value, json};

use super::{Family, Fields, GgufLayout, biases, expect_text, require_head_dim, windows};
use crate::error::Result;
use crate::model::{Architecture, DecoderSpec, Gate, NormPlacement};

/// What transformers takes where config.json has no value; null means none.
const WINDOW: usize = 4096;
const QUERY_SCALAR: f64 = 256.0;

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

/// llama.cpp scales scores by head_dim, but for the 27B models of both generations, by hidden_size / heads.
pub(super) fn complete_query_scalar(fields: &mut Map<String, Value>) {
    let size = |name: &str| fields.get(name).and_then(Value::as_u64).unwrap_or(0);
    let largest = [46, 62].contains(&size("num_hidden_layers"));
    let scalar = match size("hidden_size").checked_div(size("num_attention_heads")) {
        Some(share) if largest => share,
        _ => size("head_dim"),
    };
    fields.insert("query_pre_attn_scalar".into(), json!(scalar));
}

/// What Gemma 2 and 3 share.
pub(super) fn common(fields: &Fields, spec: &mut DecoderSpec) -> Result<()> {
    biases(fields, spec)?;
    require_head_dim(fields)?;
    expect_text(fields, "hidden_activation", "gelu_pytorch_tanh")?;
    spec.gate = Gate::GeluTanh;
    spec.norms = NormPlacement::Both;
    spec.norms_from_one = true;
    spec.embedding_scale = (spec.hidden as f64).sqrt();
    spec.embedding_scale_is_rounded = true;
    let scalar = fields.number("query_pre_attn_scalar")?.unwrap_or(QUERY_SCALAR);
    spec.attention_scale = 1.0 / scalar.sqrt();
    Ok(())
}
