//! Mixtral (Jiang et al. 2024, arXiv:2401.04088): Mistral with experts in place of the feed-forward.

use super::experts::{self, CHOSEN, COUNT};
use super::{Family, GgufLayout, windows};
use crate::model::{Architecture, ExpertSpec};

pub const FAMILY: Family = Family {
    architecture: Architecture::Mixtral,
    name: "Mixtral",
    class: "MixtralForCausalLM",
    model_type: "mixtral",
    gguf: Some(GgufLayout {
        architecture: "llama",
        interleaved_heads: true,
        fields: &[("expert_count", "num_local_experts"), ("expert_used_count", "num_experts_per_tok")],
        complete: None,
    }),
    fields: "sliding_window num_experts num_local_experts num_experts_per_tok router_aux_loss_coef",
    tied_head: false,
    notes: "mixture of experts, whose projections are w1, w3 and w2; router frozen, no auxiliary loss",
    describe: |fields, _, spec| {
        experts::set(
            spec,
            ExpertSpec {
                count: experts::size(fields, COUNT)?,
                chosen: experts::size(fields, CHOSEN)?,
                intermediate: spec.intermediate,
                normalized: true,
                block: "block_sparse_moe",
                names: ["w1", "w3", "w2"],
                layers: vec![true; spec.layers()],
            },
        )?;
        let window = fields.size("sliding_window")?;
        windows::set(fields, spec, window, &|_| window.is_some()).map(|_| ())
    },
};
