"""Mixtures of experts for make_goldens.py: their checkpoints, their adapters, and how peft holds those.

Checkpoints and adapters have a tensor for each expert's projection. transformers 5 keeps all experts of a layer in two
parameters, and peft turns the adapter into pairs on those when it loads it: gate and up are joined, which doubles the
rank, and B of the joined pair is block-diagonal. Its other blocks stay zero here, as they are in the adapter.
"""

import json
import re

import peft
import torch
from safetensors.torch import save_file

# What holds router and experts in a checkpoint, and an expert's gate, up and down projections.
LAYOUTS = {
    "qwen3_moe": ("mlp", ["gate_proj", "up_proj", "down_proj"]),
    "mixtral": ("block_sparse_moe", ["w1", "w3", "w2"]),
}


def has_experts(config):
    return config["model_type"] in LAYOUTS


def experts_of(config):
    """How many experts there are, and the width of one."""
    if config["model_type"] == "mixtral":
        return config["num_local_experts"], config["intermediate_size"]
    return config["num_experts"], config["moe_intermediate_size"]


def checkpoint_shapes(config, state):
    """(name, shape) of a checkpoint's tensors, given the state dict of the model."""
    block, (gate, up, down) = LAYOUTS[config["model_type"]]
    for name, weight in state.items():
        path, _, kind = name.rpartition(".")
        experts = path.replace("mlp.experts", f"{block}.experts")
        if kind == "gate_up_proj":
            half = (weight.shape[1] // 2, weight.shape[2])
            yield from ((f"{experts}.{e}.{p}.weight", half) for e in range(len(weight)) for p in (gate, up))
        elif kind == "down_proj":
            yield from ((f"{experts}.{e}.{down}.weight", weight.shape[1:]) for e in range(len(weight)))
        else:
            yield name.replace("mlp.gate.", f"{block}.gate."), weight.shape


def write_adapter(folder, base, config, lora, generator):
    """A pair for each expert's projection, as peft wrote it with transformers 4."""
    peft.LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **lora).save_pretrained(folder)
    path = folder / "adapter_config.json"
    saved = json.loads(path.read_text())
    saved["base_model_name_or_path"] = f"tests/goldens/{base.parent.name}/base"
    saved["target_modules"] = sorted(saved["target_modules"])
    path.write_text(json.dumps(saved, indent=2) + "\n", encoding="utf-8")
    hidden, head_dim, rank = config["hidden_size"], config["head_dim"], lora["r"]
    queries, keys = config["num_attention_heads"] * head_dim, config["num_key_value_heads"] * head_dim
    (count, width), (block, (gate, up, down)) = experts_of(config), LAYOUTS[config["model_type"]]
    attention = {"q_proj": (hidden, queries), "k_proj": (hidden, keys), "v_proj": (hidden, keys), "o_proj": (queries, hidden)}
    projections = {gate: (hidden, width), up: (hidden, width), down: (width, hidden)}
    sizes = {}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"base_model.model.model.layers.{layer}"
        sizes |= {f"{prefix}.self_attn.{name}": size for name, size in attention.items()}
        if layer not in config.get("mlp_only_layers", []):
            for expert in range(count):
                sizes |= {f"{prefix}.{block}.experts.{expert}.{name}": size for name, size in projections.items()}
    tensors = {}
    for key, (inner, out) in sizes.items():
        if key.rpartition(".")[2] in lora["target_modules"]:
            tensors[f"{key}.lora_A.weight"] = 0.15 * torch.randn((rank, inner), generator=generator)
            tensors[f"{key}.lora_B.weight"] = 0.15 * torch.randn((out, rank), generator=generator)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def by_expert(config, key, tensor):
    """(key, tensor) of each expert's projection, given one of peft's tensors."""
    if not has_experts(config) or ".mlp.experts." not in key:
        return [(key, tensor)]
    block, (gate, up, down) = LAYOUTS[config["model_type"]]
    count, width = experts_of(config)
    path = key.split(".mlp.experts.")[0] + f".{block}.experts"
    joined = ".base_layer." in key
    if key.endswith("lora_A.weight"):
        tensor, kind = tensor.reshape(count, -1, tensor.shape[1]), "lora_A.weight"
    else:
        tensor, kind = tensor.reshape(tensor.shape[0], -1, count).permute(2, 0, 1), "lora_B.weight"
    parts = {down: tensor}
    if joined and kind == "lora_A.weight":
        rank = tensor.shape[1] // 2
        parts = {gate: tensor[:, :rank], up: tensor[:, rank:]}
    elif joined:
        rank = tensor.shape[2] // 2
        parts = {gate: tensor[:, :width, :rank], up: tensor[:, width:, rank:]}
    return [
        (f"{path}.{expert}.{name}.{kind}", part[expert].contiguous())
        for name, part in parts.items()
        for expert in range(count)
    ]


def keep_blocks(config, weights):
    """Lets no gradient reach the blocks of a joined B that no expert's pair has."""
    if not has_experts(config):
        return
    count, width = experts_of(config)
    for key, weight in weights.items():
        if re.search(r"experts\.base_layer\.lora_B", key):
            mask = torch.ones(weight.shape[0], weight.shape[1] // count, count, dtype=weight.dtype)
            rank = mask.shape[1] // 2
            mask[:width, rank:] = 0.0
            mask[width:, :rank] = 0.0
            weight.register_hook(lambda gradient, mask=mask.reshape(weight.shape): gradient * mask)


def stacked(config, tensors):
    """The tensors of a checkpoint with those of all experts stacked, as llama.cpp's converter has them."""
    block, (gate, up, down) = LAYOUTS[config["model_type"]]
    names = {gate: "ffn_gate_exps", up: "ffn_up_exps", down: "ffn_down_exps"}
    rest, experts = {}, {}
    for name, weight in tensors.items():
        found = re.fullmatch(rf"model\.layers\.(\d+)\.{block}\.experts\.(\d+)\.(\w+)\.weight", name)
        if found:
            layer, _, projection = found.groups()
            experts.setdefault(f"blk.{layer}.{names[projection]}.weight", []).append(weight)
        else:
            rest[name] = weight
    return rest, {name: torch.stack(weights) for name, weights in experts.items()}
