//! What Gemma 2 and 3 share.

use serde_json::{Map, Value, json};

use super::{Fields, biases, expect_text, require_head_dim};
use crate::error::Result;
use crate::model::{DecoderSpec, Gate, NormPlacement};

/// What transformers takes where config.json has no `query_pre_attn_scalar`.
const QUERY_SCALAR: f64 = 256.0;

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

/// Norms on both sides of each block, gelu, embeddings times the root of their length.
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
