//! Tensor names in GGUF and in Hugging Face folders.

use crate::model::{DecoderSpec, NormPlacement};

/// Per layer: GGUF's name, Hugging Face's name.
const LAYER: [(&str, &str); 13] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_qkv", "self_attn.qkv_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("attn_output", "self_attn.o_proj"),
    ("post_attention_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
];

const WHOLE: [(&str, &str); 3] =
    [("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];

/// GGUF's names of the gate, up and down projections of all experts of a layer, [experts, out, in].
const EXPERTS: [&str; 3] = ["ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"];

/// `blk.3.ffn_up_exps.weight` -> `model.layers.3.mlp.experts.*.up_proj.weight`, or the router's name; `None` for a tensor
/// that is not of experts.
pub(super) fn of_experts(name: &str, decoder: &DecoderSpec) -> Option<String> {
    let (layer, part) = name.strip_suffix(".weight")?.strip_prefix("blk.")?.split_once('.')?;
    let layer = layer.parse().ok()?;
    let experts = decoder.experts_of(layer)?;
    if part == "ffn_gate_inp" {
        return Some(experts.router(layer));
    }
    let at = EXPERTS.iter().position(|gguf| *gguf == part)?;
    Some(format!("{}.weight", experts.path(layer, experts.names[at])))
}

/// `blk.3.attn_q.weight` -> `model.layers.3.self_attn.q_proj.weight`; `None` for a tensor that has no counterpart.
pub(super) fn to_hugging_face(name: &str, decoder: &DecoderSpec) -> Option<String> {
    let (stem, kind) = name.rsplit_once('.')?;
    let Some((layer, part)) = stem.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) else {
        return WHOLE.iter().find(|(gguf, _)| *gguf == stem).map(|(_, hf)| format!("{hf}.{kind}"));
    };
    let in_layer = match part {
        // The norm before the feed-forward has another name where attention has a norm behind it.
        "ffn_norm" if decoder.norms == NormPlacement::Both => "pre_feedforward_layernorm",
        "ffn_norm" => "post_attention_layernorm",
        "ffn_up" if decoder.fused_projections => "mlp.gate_up_proj",
        _ => LAYER.iter().find(|(gguf, _)| *gguf == part)?.1,
    };
    Some(format!("model.layers.{layer}.{in_layer}.{kind}"))
}

/// Undoes llama.cpp's reordering of q and k rows, in place.
///
/// llama.cpp rotates neighbouring pairs (2i, 2i + 1) of each head, Hugging Face the pairs (i, i + head_dim / 2); its
/// converter therefore interleaves the two halves of each head's rows. `values` is `[heads * head_dim, row]`.
pub(super) fn unpermute_rows(values: &mut [f32], head_dim: usize, row: usize) {
    let mut head_rows = vec![0.0; head_dim * row];
    for head in values.chunks_exact_mut(head_dim * row) {
        head_rows.copy_from_slice(head);
        for (position, source) in head_rows.chunks_exact(row).enumerate() {
            let target = (position % 2) * (head_dim / 2) + position / 2;
            head[target * row..][..row].copy_from_slice(source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_mapped() {
        let mut decoder = DecoderSpec::default();
        let name = |name: &str| to_hugging_face(name, &decoder).unwrap();
        assert_eq!(name("token_embd.weight"), "model.embed_tokens.weight");
        assert_eq!(name("blk.12.ffn_norm.weight"), "model.layers.12.post_attention_layernorm.weight");
        assert_eq!(name("blk.0.attn_q.bias"), "model.layers.0.self_attn.q_proj.bias");
        assert_eq!(to_hugging_face("rope_freqs.weight", &decoder), None);
        decoder.norms = NormPlacement::Both;
        let norm = to_hugging_face("blk.1.ffn_norm.weight", &decoder).unwrap();
        assert_eq!(norm, "model.layers.1.pre_feedforward_layernorm.weight");
    }

    #[test]
    fn interleaved_halves_come_apart() {
        // Two heads of four rows; GGUF order within a head is row 0, 2, 1, 3 of the original.
        let mut rows = vec![0.0, 2.0, 1.0, 3.0, 10.0, 12.0, 11.0, 13.0];
        unpermute_rows(&mut rows, 4, 1);
        assert_eq!(rows, [0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 12.0, 13.0]);
    }
}
