#!/usr/bin/env python3
"""Make tests/goldens: what torch, transformers and peft compute on tiny random models of each family.

  pip install -r scripts/requirements-goldens.txt
  python3 scripts/make_goldens.py [--only CASE ...]

Made with Python 3.11, torch 2.15.0, transformers 5.23.0 and peft 0.21.2 on x86-64. Weights, adapters and rows come
from seeded generators, so a second run with these versions on one machine gives the same bytes.

Each case is a folder:

  base/                  config.json and model.safetensors (f32)
  base.gguf              the same model as llama.cpp's converter stores it, for families that it knows
  adapter/               the starting adapter as peft saves it (absent from the `full` case)
  rows.jsonl             {"input_ids", "labels"}, one unpadded row a line; label -100 is not supervised
  batch.json             input_ids, labels, attention_mask: the same rows padded on the right, [batch, seq]
  expected.safetensors   see below; computed in float64, stored in float32
  meta.json              versions, hyperparameters, losses and gradient norms as full-precision numbers

expected.safetensors holds, for the mean loss over the batch's supervised tokens (label i is predicted at i - 1):

  logits                 [batch, seq, vocab], before any step; rows behind the padding mean nothing
  loss                   [1], before any step
  losses, grad_norms     [steps], each before the step's update and before clipping
  grad.KEY               gradient of the loss at the start, unclipped
  after.KEY              weight after all steps

KEY is peft's key of an adapter tensor (base_model.model.....lora_A.weight) or, in the `full` case, the
checkpoint's tensor name. The `full` case also has losses_matrix_decay: weight decay on matrices only, not on norms.
"""

import argparse
import importlib
import json
import math
import shutil
from pathlib import Path

import golden_experts as experts
import gguf
import numpy
import peft
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

STEP = {
    "optimizer": "adamw",
    "learning_rate": 1e-2,
    "betas": [0.9, 0.999],
    "eps": 1e-8,
    "weight_decay": 0.01,
    "max_grad_norm": 1.0,
    "schedule": "constant",
    "warmup_steps": 0,
}

# Every size is as small as shows what a case is about.
SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "intermediate_size": 40, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 53, "rope_theta": 1000.0}
ALL_LINEAR = {"r": 2, "lora_alpha": 5, "target_modules": "all-linear"}


def case(seed, lora=ALL_LINEAR, steps=2, lengths=(9, 12), added=0, **config):
    """Sizes other than SMALL and switches are given by name; None leaves a field out. `added` tokens come on top."""
    config = {key: value for key, value in {**SMALL, **config}.items() if value is not None}
    described = {"seed": seed, "steps": steps, "lengths": list(lengths), "config": config}
    if added:
        described["added"] = added
    return {**described, "lora": lora} if lora else described


def family(seed, model_type, class_name, **rest):
    return case(seed, model_type=model_type, architectures=[class_name], **rest)


def tiny(seed, lora, lengths=(9, 6), **config):
    """One layer, for what lies outside of layers."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 24, "num_attention_heads": 2,
             "num_key_value_heads": 1, "rope_theta": 10000.0, "tie_word_embeddings": False}
    return case(seed, lora, steps=8, lengths=lengths, **{**sizes, **config})


FUSED = {"r": 3, "lora_alpha": 4, "target_modules": ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]}
SHORT, LONG = [1.0, 1.25, 1.5, 1.75], [1.0, 2.0, 4.5, 9.0]
ENDS = {"r": 3, "lora_alpha": 4, "target_modules": ["embed_tokens", "lm_head", "o_proj"]}

CASES = {
    # Grouped queries and a tied head; `rope_theta` at the top level, where transformers 4 writes it.
    "gqa_tied": case(
        1, {"r": 3, "lora_alpha": 7, "target_modules": "all-linear"}, steps=10, lengths=(9, 12, 5), hidden_size=32,
        intermediate_size=48, vocab_size=64, rope_theta=5000.0, tie_word_embeddings=True,
    ),
    # Sizes that no vector width divides, one key-value head, `rope_theta` in `rope_parameters`.
    "untied_odd": case(
        2, {"r": 5, "lora_alpha": 3, "target_modules": "all-linear"}, steps=10, lengths=(7, 11), num_hidden_layers=3,
        num_attention_heads=3, num_key_value_heads=1, vocab_size=59, rope_theta=None, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
    ),
    # heads * head_dim != hidden; alpha / sqrt(r), ranks and alphas by pattern, some modules, the upper layers.
    "mha_patterns": case(
        3,
        {
            "r": 4, "lora_alpha": 6, "use_rslora": True, "layers_to_transform": [1, 2],
            "target_modules": ["q_proj", "v_proj", "o_proj", "down_proj"],
            "rank_pattern": {"q_proj": 2, "layers.2.mlp.down_proj": 7},
            "alpha_pattern": {"v_proj": 5, "layers.2.mlp.down_proj": 9},
        },
        steps=10, lengths=(10, 6, 13), hidden_size=20, num_hidden_layers=3, intermediate_size=37, num_key_value_heads=4,
        head_dim=6, vocab_size=61, rope_theta=10000.0, tie_word_embeddings=False,
    ),
    # DoRA with biases nowhere and an odd rank; the magnitudes are away from their starting values.
    "dora": case(
        5, {"r": 3, "lora_alpha": 5, "target_modules": "all-linear", "use_dora": True}, steps=10, lengths=(8, 11, 6),
        intermediate_size=36, num_attention_heads=3, num_key_value_heads=1, vocab_size=60, rope_theta=10000.0,
        tie_word_embeddings=False,
    ),
    # Modules trained in full beside the pairs: the head of an untied model and all norms ("norm" ends every norm's path).
    "saved_modules": case(
        6,
        {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "down_proj"], "modules_to_save": ["lm_head", "norm"]},
        steps=10, lengths=(7, 10), intermediate_size=36, num_attention_heads=3, num_key_value_heads=3, vocab_size=57,
        rope_theta=10000.0, tie_word_embeddings=False,
    ),
    # A tied model whose token table is trained in full: PEFT trains a copy, the head stays.
    "saved_table": tiny(
        7, {"r": 2, "lora_alpha": 4, "target_modules": ["v_proj"], "modules_to_save": ["embed_tokens"]}, lengths=(7, 10),
        vocab_size=57, tie_word_embeddings=True,
    ),
    # Pairs on the token table and on the output head.
    "embedding": tiny(8, ENDS),
    # The same with DoRA.
    "embedding_dora": tiny(9, {**ENDS, "use_dora": True}),
    # Rows of three tokens that the base model lacks, and of one that it has, which a tied head shares.
    "tokens_tied": tiny(
        22, {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "trainable_token_indices": [54, 5, 53, 55]}, added=3,
        tie_word_embeddings=True,
    ),
    # The same in a token table and a head that are apart.
    "tokens_untied": tiny(
        23,
        {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj"],
         "trainable_token_indices": {"embed_tokens": [53, 54, 55], "lm_head": [5, 54, 53]}},
        added=3,
    ),
    # Every weight trained: embedding shared with the head, projections and norms.
    "full": case(
        4, None, steps=5, lengths=(8, 11, 4), num_attention_heads=3, num_key_value_heads=1, vocab_size=59,
        rope_theta=10000.0, tie_word_embeddings=True,
    ),
}

# One case a family.
CASES |= {
    "llama3_rope": family(
        10, "llama", "LlamaForCausalLM", tie_word_embeddings=True,
        rope_scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                      "original_max_position_embeddings": 64},
    ),
    "llama_yarn": family(
        11, "llama", "LlamaForCausalLM", attention_bias=True, mlp_bias=True,
        rope_scaling={"type": "yarn", "factor": 4.0, "mscale": 1.0, "mscale_all_dim": 0.5,
                      "original_max_position_embeddings": 16},
    ),
    "mistral": family(
        12, "mistral", "MistralForCausalLM", sliding_window=4,
        rope_parameters={"rope_type": "yarn", "rope_theta": 1000.0, "factor": 4.0, "attention_factor": 1.3,
                         "original_max_position_embeddings": 16, "truncate": False},
    ),
    # A window that is switched off.
    "qwen2": family(
        13, "qwen2", "Qwen2ForCausalLM", tie_word_embeddings=True, use_sliding_window=False, sliding_window=4,
        max_window_layers=1, hidden_size=32,
    ),
    # A window from the second layer on, of which llama.cpp's files know nothing.
    "qwen2_window": family(
        21, "qwen2", "Qwen2ForCausalLM", use_sliding_window=True, sliding_window=5, max_window_layers=1,
        hidden_size=32,
    ),
    "qwen3": family(
        14, "qwen3", "Qwen3ForCausalLM",
        rope_parameters={"rope_type": "yarn", "rope_theta": 1000.0, "factor": 4.0,
                         "original_max_position_embeddings": 16, "beta_fast": 4.0, "beta_slow": 0.5},
    ),
    "smollm3": family(
        15, "smollm3", "SmolLM3ForCausalLM", num_hidden_layers=4, hidden_size=32,
        rope_parameters={"rope_type": "yarn", "rope_theta": 1000.0, "factor": 4.0,
                         "original_max_position_embeddings": 16},
    ),
    "granite": family(
        16, "granite", "GraniteForCausalLM", embedding_multiplier=3.0, residual_multiplier=0.4,
        attention_multiplier=0.2, logits_scaling=2.5, hidden_size=32,
    ),
    "olmo2": family(17, "olmo2", "Olmo2ForCausalLM", hidden_size=32),
    # A partial rotation, and adapters on the fused matrices.
    "phi3": family(
        18, "phi3", "Phi3ForCausalLM", partial_rotary_factor=0.5, sliding_window=5, hidden_size=32,
        original_max_position_embeddings=64,
        lora=FUSED,
    ),
    # longrope: rows within the original context of 10 tokens, and one beyond it, which decides for the batch.
    "phi3_short": family(
        24, "phi3", "Phi3ForCausalLM", lengths=(9, 10), hidden_size=32, original_max_position_embeddings=10, lora=FUSED,
        rope_scaling={"type": "longrope", "short_factor": SHORT, "long_factor": LONG},
    ),
    "phi3_long": family(
        25, "phi3", "Phi3ForCausalLM", lengths=(9, 12), hidden_size=32, original_max_position_embeddings=10, lora=FUSED,
        partial_rotary_factor=0.5, rope_scaling={"type": "su", "short_factor": SHORT[:2], "long_factor": LONG[:2],
                      "original_max_position_embeddings": 10},
    ),
    # Caps so low that scores and logits feel them.
    "gemma2": family(
        19, "gemma2", "Gemma2ForCausalLM", hidden_activation="gelu_pytorch_tanh", sliding_window=4,
        query_pre_attn_scalar=8, rope_theta=10000.0, attn_logit_softcapping=1.5, final_logit_softcapping=2.0,
    ),
    "gemma3": family(
        20, "gemma3_text", "Gemma3ForCausalLM", hidden_activation="gelu_pytorch_tanh", num_hidden_layers=6,
        hidden_size=16, intermediate_size=24, num_attention_heads=2, num_key_value_heads=1, sliding_window=4,
        query_pre_attn_scalar=8, rope_local_base_freq=10000.0,
        rope_scaling={"rope_type": "linear", "factor": 2.0},
    ),
}


ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]

CASES |= {
    # The weights of the chosen experts sum to 1; some experts get no token.
    "qwen3_moe": family(
        22, "qwen3_moe", "Qwen3MoeForCausalLM", num_experts=6, num_experts_per_tok=2, moe_intermediate_size=12,
        norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[], router_aux_loss_coef=0.001,
        lora={"r": 2, "lora_alpha": 5, "target_modules": [*ATTENTION, "gate_proj", "up_proj", "down_proj"]},
    ),
    # The first layer has no experts; the weights of the chosen are probabilities.
    "qwen3_moe_mixed": family(
        23, "qwen3_moe", "Qwen3MoeForCausalLM", num_experts=5, num_experts_per_tok=3, moe_intermediate_size=7,
        norm_topk_prob=False, decoder_sparse_step=1, mlp_only_layers=[0], attention_bias=True,
        lora={"r": 3, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj", "gate_proj", "up_proj", "down_proj"]},
    ),
    "mixtral": family(
        24, "mixtral", "MixtralForCausalLM", num_local_experts=4, num_experts_per_tok=2, intermediate_size=20,
        hidden_size=32,
        lora={"r": 2, "lora_alpha": 3, "target_modules": [*ATTENTION, "w1", "w2", "w3"]},
    ),
}


def float64_norm(self, hidden):
    """RMSNorm in the input's own precision; transformers' class falls back to float32."""
    variance = hidden.pow(2).mean(-1, keepdim=True)
    return self.weight * (hidden * torch.rsqrt(variance + self.variance_epsilon))


def float64_norm_from_one(self, hidden):
    """The same for Gemma, whose weight is the difference from 1."""
    variance = hidden.pow(2).mean(-1, keepdim=True)
    return hidden * torch.rsqrt(variance + self.eps) * (1.0 + self.weight)


def keep_float64():
    """Makes transformers compute in the model's own precision throughout."""
    for name in {case["config"].get("model_type", "llama").removesuffix("_text") for case in CASES.values()}:
        module = importlib.import_module(f"transformers.models.{name}.modeling_{name}")
        norms = [cls for key, cls in vars(module).items() if key.endswith("RMSNorm")]
        for norm in norms:
            norm.forward = float64_norm_from_one if name.startswith("gemma") else float64_norm
    # Its router computes in float32.
    torch.Tensor.float = lambda tensor: tensor if tensor.dtype == torch.float64 else tensor.to(torch.float32)
    softmax = torch.nn.functional.softmax
    torch.nn.functional.softmax = lambda x, dim=None, dtype=None: softmax(x, dim=dim)


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


# --- Inputs --------------------------------------------------------------------------------------


def write_base(folder, case, generator):
    folder.mkdir(parents=True)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "rms_norm_eps": 1e-5, "max_position_embeddings": 64, "attention_bias": False, "mlp_bias": False,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "torch_dtype": "float32", **case["config"],
    }
    if config["model_type"] not in ("llama", "granite", "smollm3"):
        del config["mlp_bias"]
    if config["model_type"].startswith("gemma"):
        del config["hidden_act"]
    write_json(folder / "config.json", config)
    loaded = AutoConfig.from_pretrained(folder)
    theta = case["config"].get("rope_theta") or case["config"]["rope_parameters"]["rope_theta"]
    read = loaded.rope_parameters.get("full_attention", loaded.rope_parameters)
    assert read["rope_theta"] == theta, "transformers read another rope_theta"
    tensors = {}
    state = AutoModelForCausalLM.from_config(loaded).state_dict()
    shapes = ((name, weight.shape) for name, weight in state.items())
    for name, shape in experts.checkpoint_shapes(config, state) if experts.has_experts(config) else shapes:
        noise = torch.randn(shape, generator=generator)
        if name.endswith("bias") or (len(shape) == 1 and config["model_type"].startswith("gemma")):
            tensors[name] = 0.2 * noise
        elif len(shape) == 1:
            tensors[name] = 1.0 + 0.2 * noise
        elif "embed_tokens" in name:
            tensors[name] = 0.5 * noise
        else:
            tensors[name] = 0.6 * noise / math.sqrt(shape[1])
    if loaded.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return config, tensors


def with_more_tokens(model, case):
    """The model with rows for `added` tokens, which are the mean of the others."""
    if "added" in case:
        stored = model.config.vocab_size
        model.resize_token_embeddings(stored + case["added"], mean_resizing=False)
        for table in [model.get_input_embeddings(), model.get_output_embeddings()]:
            with torch.no_grad():
                table.weight[stored:] = table.weight[:stored].mean(0)
    return model


def write_adapter(folder, base, case, generator):
    """peft's own files, with B no longer zero and no path of this machine in them."""
    config = peft.LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **case["lora"])
    model = peft.get_peft_model(with_more_tokens(AutoModelForCausalLM.from_pretrained(base), case), config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator) if weight.requires_grad else None
            if "lora_magnitude_vector" in name:
                weight.mul_(1.0 + 0.2 * noise)
            elif "lora_" in name:
                weight.copy_(0.15 * noise)
            elif weight.requires_grad:
                weight.add_(0.1 * noise)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    saved = json.loads((folder / "adapter_config.json").read_text())
    saved["base_model_name_or_path"] = f"tests/goldens/{base.parent.name}/base"
    for key in ["target_modules", "modules_to_save"]:
        saved[key] = sorted(saved[key]) if saved[key] else saved[key]
    write_json(folder / "adapter_config.json", saved)


def make_rows(case, generator):
    """Random rows: a prompt that is not supervised, an answer that is, and a gap inside the longest answer."""
    rows = []
    for length in case["lengths"]:
        ids = torch.randint(3, case["config"]["vocab_size"] + case.get("added", 0), (length,), generator=generator).tolist()
        prompt = 2 + len(rows)
        labels = [-100] * prompt + ids[prompt:]
        if length == max(case["lengths"]):
            labels[prompt + 2] = -100
        rows.append({"input_ids": ids, "labels": labels})
    return rows


def padded(rows):
    width = max(len(row["input_ids"]) for row in rows)

    def pad(values, filler):
        return values + [filler] * (width - len(values))

    return {
        "input_ids": [pad(row["input_ids"], 0) for row in rows],
        "labels": [pad(row["labels"], -100) for row in rows],
        "attention_mask": [pad([1] * len(row["input_ids"]), 0) for row in rows],
    }


# --- GGUF ----------------------------------------------------------------------------------------

# llama.cpp's names of families; files of Llama itself are made in the unit tests.
GGUF_NAMES = {
    "qwen2": "qwen2", "qwen3": "qwen3", "smollm3": "smollm3", "granite": "granite", "olmo2": "olmo2",
    "phi3": "phi3", "gemma2": "gemma2", "gemma3_text": "gemma3", "qwen3_moe": "qwen3moe", "mixtral": "llama",
}
# Families that rotate neighbouring pairs in llama.cpp: its converter interleaves the halves of each head.
INTERLEAVED = ["smollm3", "granite", "mixtral"]


def interleaved(weight, heads):
    rows = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return rows.swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path, config, tensors):
    """The file that llama.cpp's convert_hf_to_gguf.py would write in f32, with a tokenizer that stands for none."""
    kind = config["model_type"]
    writer = gguf.GGUFWriter(path, GGUF_NAMES[kind])
    layers, head_dim = config["num_hidden_layers"], config["head_dim"]
    writer.add_block_count(layers)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    if kind in ("qwen3", "gemma2", "gemma3_text", "qwen3_moe"):
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if kind != "gemma2":
        writer.add_rope_freq_base(config["rope_theta"])
    add_peculiarities(writer, config)
    add_tokenizer(writer, config["vocab_size"])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[GGUF_NAMES[kind].upper()], layers)
    of_experts = {}
    if experts.has_experts(config):
        tensors, of_experts = experts.stacked(config, tensors)
    for name, weight in of_experts.items():
        writer.add_tensor(name, numpy.ascontiguousarray(weight.numpy()))
    for name, weight in tensors.items():
        values = weight.numpy()
        if kind in INTERLEAVED and ("q_proj" in name or "k_proj" in name):
            heads = config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"]
            values = interleaved(values, heads)
        if kind.startswith("gemma") and name.endswith("norm.weight"):
            values = values + 1.0
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        writer.add_tensor(stored, numpy.ascontiguousarray(values, dtype=numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_peculiarities(writer, config):
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        if "beta_fast" in rope:
            writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
            writer.add_rope_scaling_yarn_beta_slow(rope["beta_slow"])
    elif kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if experts.has_experts(config):
        count, width = experts.experts_of(config)
        writer.add_expert_count(count)
        writer.add_expert_used_count(config["num_experts_per_tok"])
        if config["model_type"] == "qwen3_moe":
            writer.add_expert_feed_forward_length(width)
    if config["model_type"] == "granite":
        writer.add_attention_scale(config["attention_multiplier"])
        writer.add_embedding_scale(config["embedding_multiplier"])
        writer.add_residual_scale(config["residual_multiplier"])
        writer.add_logit_scale(config["logits_scaling"])
    if config["model_type"] == "phi3":
        writer.add_rope_dimension_count(int(config["head_dim"] * config.get("partial_rotary_factor", 1.0)))
    if "long_factor" in rope:
        original = config["original_max_position_embeddings"]
        stretch = config["max_position_embeddings"] / original
        writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(stretch) / math.log(original)))
        for name in ("long", "short"):
            writer.add_tensor(f"rope_factors_{name}.weight", numpy.array(rope[f"{name}_factor"], dtype=numpy.float32))
    if config.get("sliding_window") and config["model_type"] in ("phi3", "gemma2", "gemma3_text"):
        writer.add_sliding_window(config["sliding_window"])
    if config["model_type"] == "gemma2":
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])


def add_tokenizer(writer, size):
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(["<pad>", "<s>", "</s>", "a", "b", "ab"] + [f"x{i}" for i in range(6, size)])
    writer.add_token_types([3, 3, 3] + [1] * (size - 3))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


# --- Expectations --------------------------------------------------------------------------------


# The implementation that computes in the model's own precision.
EXPERTS = {name: {"experts_implementation": "eager"} for name in experts.LAYOUTS}


def load_model(folder, case, dtype):
    config = AutoConfig.from_pretrained(folder / "base")
    # Only this implementation has soft caps.
    attention = "eager" if config.model_type == "gemma2" else "sdpa"
    model = AutoModelForCausalLM.from_pretrained(
        folder / "base", dtype=torch.float32, attn_implementation=attention, **EXPERTS.get(config.model_type, {})
    )
    model = with_more_tokens(model, case)
    if (folder / "adapter").exists():
        model = peft.PeftModel.from_pretrained(model, folder / "adapter", is_trainable=True)
    model = model.to(dtype).train()
    experts.keep_blocks(json.loads((folder / "base/config.json").read_text()), trained(model))
    return model


def trained(model):
    """Checkpoint key -> trained parameter."""
    def key(name):
        saved = name.replace(".modules_to_save.default.", ".").replace(".lora_magnitude_vector.default.weight", ".lora_magnitude_vector")
        return saved.removesuffix(".default").replace(".default.", ".")

    return {key(name): weight for name, weight in model.named_parameters() if weight.requires_grad}


def mean_loss(logits, labels):
    vocabulary = logits.shape[-1]
    return torch.nn.functional.cross_entropy(
        logits[:, :-1].reshape(-1, vocabulary), labels[:, 1:].reshape(-1), ignore_index=-100
    )


def optimizer_for(weights, decay_norms):
    matrices = [weight for weight in weights if weight.ndim > 1 or decay_norms]
    norms = [weight for weight in weights if weight.ndim == 1 and not decay_norms]
    groups = [{"params": matrices, "weight_decay": STEP["weight_decay"]}, {"params": norms, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=STEP["learning_rate"], betas=tuple(STEP["betas"]), eps=STEP["eps"],
    )


def by_key(folder, kind, tensors):
    """Named as in expected.safetensors, those of each expert by themselves."""
    config = json.loads((folder / "base/config.json").read_text())
    each = (part for key, tensor in tensors.items() for part in experts.by_expert(config, key, tensor))
    return {f"{kind}.{key}": tensor for key, tensor in each}


def train(folder, case, batch, dtype, decay_norms=True):
    """Tensors as expected.safetensors names them."""
    model = load_model(folder, case, dtype)
    weights = trained(model)
    optimizer = optimizer_for(list(weights.values()), decay_norms)
    out, losses, norms = {}, [], []
    for step in range(case["steps"]):
        optimizer.zero_grad()
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        loss = mean_loss(logits, batch["labels"])
        loss.backward()
        if step == 0:
            out = {"logits": logits.detach().clone(), "loss": loss.detach().reshape(1)}
            out |= by_key(folder, "grad", {key: weight.grad.clone() for key, weight in weights.items()})
        norm = torch.nn.utils.clip_grad_norm_(list(weights.values()), STEP["max_grad_norm"])
        optimizer.step()
        losses.append(loss.item())
        norms.append(norm.item())
    out |= by_key(folder, "after", {key: weight.detach() for key, weight in weights.items()})
    out["losses"] = torch.tensor(losses, dtype=torch.float64)
    out["grad_norms"] = torch.tensor(norms, dtype=torch.float64)
    return out


def largest_difference(exact, rounded):
    """Largest error of float32 training, each tensor's error relative to its largest element."""
    def error(key):
        return ((exact[key] - rounded[key]).abs().max() / exact[key].abs().max()).item()

    return max(error(key) for key in exact)


def make_case(folder, case):
    shutil.rmtree(folder, ignore_errors=True)
    generator = torch.Generator().manual_seed(case["seed"])
    config, tensors = write_base(folder / "base", case, generator)
    known = config["model_type"] in GGUF_NAMES and not config.get("use_sliding_window")
    # llama.cpp's files of Qwen 3 have experts in every layer.
    if known and not config.get("mlp_only_layers"):
        write_gguf(folder / "base.gguf", config, tensors)
    if "lora" in case and experts.has_experts(config):
        (folder / "adapter").mkdir()
        experts.write_adapter(folder / "adapter", folder / "base", config, case["lora"], generator)
    elif "lora" in case:
        write_adapter(folder / "adapter", folder / "base", case, generator)
    rows = make_rows(case, generator)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    batch = padded(rows)
    write_json(folder / "batch.json", batch)
    batch = {key: torch.tensor(value) for key, value in batch.items()}

    exact = train(folder, case, batch, torch.float64)
    difference = largest_difference(exact, train(folder, case, batch, torch.float32))
    assert difference < 2e-5, f"{folder.name}: float32 is {difference:.1e} away: the case is too unstable for a golden"
    if "lora" not in case:
        exact["losses_matrix_decay"] = train(folder, case, batch, torch.float64, decay_norms=False)["losses"]
    stored = {key: tensor.to(torch.float32).contiguous() for key, tensor in exact.items()}
    save_file(stored, folder / "expected.safetensors")
    write_meta(folder, case, batch, exact, difference)
    return difference


def write_meta(folder, case, batch, exact, difference):
    write_json(
        folder / "meta.json",
        {
            "versions": {
                "torch": torch.__version__.partition("+")[0],
                "transformers": transformers.__version__,
                "peft": peft.__version__,
            },
            "hyperparameters": {**STEP, "steps": case["steps"], "decayed": "every trained weight"},
            "supervised_tokens": int((batch["labels"][:, 1:] != -100).sum()),
            "loss": exact["loss"].item(),
            "losses": exact["losses"].tolist(),
            "grad_norms": exact["grad_norms"].tolist(),
            "float32_relative_difference": float(f"{difference:.2e}"),
        },
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("tests/goldens"))
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_float64()
    for name, case in CASES.items():
        if name not in options.only:
            continue
        difference = make_case(options.out / name, case)
        losses = load_file(options.out / name / "expected.safetensors")["losses"].tolist()
        print(f"{name}: loss {losses[0]:.4f} -> {losses[-1]:.4f}, float32 within {difference:.1e}")


if __name__ == "__main__":
    main()
