//! Qwen 3's mixtures of experts (Yang et al. 2025, arXiv:2505.09388): Qwen 3 with experts in place of the feed-forward.

use serde_json::{Map, Value, json};

use super::experts::{self, CHOSEN, COUNT, WIDTH};
use super::{Family, GgufLayout, biases, windows};
use crate::error::Error;
use crate::model::{Architecture, ExpertSpec, HeadNorm};

pub const FAMILY: Family = Family {
    architecture: Architecture::Qwen3Moe,
    name: "Qwen 3 MoE",
    class: "Qwen3MoeForCausalLM",
    model_type: "qwen3_moe",
    gguf: Some(GgufLayout {
        architecture: "qwen3moe",
        interleaved_heads: false,
        fields: &[
            ("expert_count", "num_experts"),
            ("expert_used_count", "num_experts_per_tok"),
            ("expert_feed_forward_length", "moe_intermediate_size"),
        ],
        complete: Some(complete),
    }),
    fields: "attention_bias use_sliding_window sliding_window max_window_layers num_experts num_local_experts \
        num_experts_per_tok moe_intermediate_size norm_topk_prob decoder_sparse_step mlp_only_layers \
        router_aux_loss_coef",
    tied_head: false,
    notes: "mixture of experts: adapters on attention and on all experts, router frozen, no auxiliary loss",
    describe: |fields, _, spec| {
        biases(fields, spec)?;
        spec.head_norm = HeadNorm::EachHead;
        let step = fields.size("decoder_sparse_step")?.unwrap_or(1);
        if step == 0 {
            return Err(Error::data("decoder_sparse_step is 0"));
        }
        let dense = fields.sizes("mlp_only_layers")?.unwrap_or_default();
        let sparse = |layer: usize| (layer + 1).is_multiple_of(step) && !dense.contains(&layer);
        experts::set(
            spec,
            ExpertSpec {
                count: experts::size(fields, COUNT)?,
                chosen: experts::size(fields, CHOSEN)?,
                intermediate: experts::size(fields, WIDTH)?,
                normalized: fields.flag("norm_topk_prob")?.unwrap_or(false),
                block: "mlp",
                names: ["gate_proj", "up_proj", "down_proj"],
                layers: (0..spec.layers()).map(sparse).collect(),
            },
        )?;
        windows::set_where_used(fields, spec, &|_| true)
    },
};

/// llama.cpp always scales the weights of the chosen experts, and has experts in every layer.
fn complete(fields: &mut Map<String, Value>) {
    fields.insert("norm_topk_prob".into(), json!(true));
    fields.insert("decoder_sparse_step".into(), json!(1));
}
