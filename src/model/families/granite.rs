//! Granite 3: Llama with factors on embeddings, scores, residual branches and logits.

use super::{Family, GgufLayout, biases};
use crate::error::Error;
use crate::model::Architecture;

pub const FAMILY: Family = Family {
    architecture: Architecture::Granite,
    name: "Granite 3.x",
    class: "GraniteForCausalLM",
    model_type: "granite",
    gguf: Some(GgufLayout {
        architecture: "granite",
        interleaved_heads: true,
        fields: &[
            ("attention.scale", "attention_multiplier"),
            ("embedding_scale", "embedding_multiplier"),
            ("residual_scale", "residual_multiplier"),
            ("logit_scale", "logits_scaling"),
        ],
        complete: None,
    }),
    fields: "attention_bias mlp_bias embedding_multiplier residual_multiplier attention_multiplier logits_scaling",
    tied_head: false,
    notes: "factors on embeddings, scores, residual branches and logits",
    describe: |fields, _, spec| {
        biases(fields, spec)?;
        let factor = |name: &str| Ok::<_, Error>(fields.number(name)?.unwrap_or(1.0));
        spec.embedding_scale = factor("embedding_multiplier")?;
        spec.residual_scale = factor("residual_multiplier")?;
        spec.attention_scale = factor("attention_multiplier")?;
        spec.logits_scale = 1.0 / factor("logits_scaling")?;
        Ok(())
    },
};
