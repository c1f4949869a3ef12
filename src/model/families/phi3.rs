//! Phi 3 and 4 (Abdin et al. 2024, arXiv:2404.14219): one matrix for q, k and v, one for gate and up.

use super::{Family, GgufLayout, windows};
use crate::error::Error;
use crate::model::{Architecture, RopeSpec, hf_rope};

pub const FAMILY: Family = Family {
    architecture: Architecture::Phi3,
    name: "Phi 3, 3.5, 4",
    class: "Phi3ForCausalLM",
    model_type: "phi3",
    gguf: Some(GgufLayout {
        architecture: "phi3",
        interleaved_heads: false,
        fields: &[("attention.sliding_window", "sliding_window")],
        complete: None,
    }),
    fields: "sliding_window partial_rotary_factor original_max_position_embeddings auto_map full_attn_mod \
        interpolate_factor",
    tied_head: false,
    notes: "adapters on qkv_proj and gate_up_proj; rope scaling: longrope",
    describe: |fields, rope, spec| {
        spec.fused_projections = true;
        let share = hf_rope::partial_rotary_factor(fields)?;
        if !(share > 0.0 && share <= 1.0) {
            return Err(Error::data(format!("partial_rotary_factor is {share}, expected 0 to 1")));
        }
        let rotated = (spec.head_dim as f64 * share) as usize;
        spec.ropes = vec![RopeSpec::new(rope, rotated)];
        let window = fields.size("sliding_window")?;
        windows::set(fields, spec, window, &|_| window.is_some()).map(|_| ())
    },
};
