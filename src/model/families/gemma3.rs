//! Gemma 3's text models (Gemma Team 2025, arXiv:2503.19786): five sliding layers to one that sees everything, with
//! another rope; norms on queries and keys.

use serde_json::{Map, Value, json};

use super::gemma::{common, complete_query_scalar};
use super::{Family, GgufLayout, windows};
use crate::error::Error;
use crate::model::{Architecture, HeadNorm, RopeSpec, hf_rope};

/// What transformers takes where config.json has no value.
const WINDOW: usize = 4096;
const PATTERN: usize = 6;

pub const FAMILY: Family = Family {
    architecture: Architecture::Gemma3,
    name: "Gemma 3 (text)",
    class: "Gemma3ForCausalLM",
    model_type: "gemma3_text",
    gguf: Some(GgufLayout {
        architecture: "gemma3",
        interleaved_heads: false,
        fields: &[
            ("attention.sliding_window", "sliding_window"),
            ("final_logit_softcapping", "final_logit_softcapping"),
        ],
        complete: Some(complete),
    }),
    fields: "attention_bias hidden_act hidden_activation query_pre_attn_scalar sliding_window layer_types \
        sliding_window_pattern _sliding_window_pattern final_logit_softcapping cache_implementation \
        rope_local_base_freq",
    tied_head: true,
    notes: "two ropes, sliding windows, norms on q and k",
    describe: |fields, _, spec| {
        common(fields, spec)?;
        spec.head_norm = HeadNorm::EachHead;
        spec.logits_soft_cap = fields.number("final_logit_softcapping")?;
        spec.ropes.push(RopeSpec::new(&hf_rope::local(fields)?, spec.head_dim));
        let pattern = fields.size("sliding_window_pattern")?.unwrap_or(PATTERN);
        if pattern == 0 {
            return Err(Error::data("sliding_window_pattern is 0"));
        }
        let window = fields.size("sliding_window")?.unwrap_or(WINDOW);
        let slides = windows::set(fields, spec, Some(window), &|layer| !(layer + 1).is_multiple_of(pattern))?;
        for (layer, slides) in spec.layer_attention.iter_mut().zip(slides) {
            layer.rope = Some(usize::from(slides));
        }
        Ok(())
    },
};

/// llama.cpp knows the rope of sliding layers without the file.
fn complete(fields: &mut Map<String, Value>) {
    complete_query_scalar(fields);
    let theta = 10_000.0;
    let whole = fields.remove("rope_parameters");
    let sliding = json!({ "rope_type": "default", "rope_theta": theta });
    fields.insert("rope_parameters".into(), json!({ "full_attention": whole, "sliding_attention": sliding }));
    fields.insert("rope_local_base_freq".into(), json!(theta));
}
