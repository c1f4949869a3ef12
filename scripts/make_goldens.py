#!/usr/bin/env python3
"""Make tests/goldens: what torch, transformers and peft compute on tiny random Llama models.

  pip install -r scripts/requirements-goldens.txt
  python3 scripts/make_goldens.py

Made with Python 3.11, torch 2.15.0, transformers 5.23.0 and peft 0.21.2 on x86-64. Weights, adapters and rows come
from seeded generators, so a second run with these versions on one machine gives the same bytes.

Each case is a folder:

  base/                  config.json and model.safetensors (f32)
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
import json
import math
import shutil
from pathlib import Path

import peft
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

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

CASES = {
    # Grouped queries and a tied head; `rope_theta` at the top level, where transformers 4 writes it.
    "gqa_tied": {
        "seed": 1,
        "steps": 10,
        "lengths": [9, 12, 5],
        "config": {
            "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 64, "rope_theta": 5000.0,
            "tie_word_embeddings": True,
        },
        "lora": {"r": 3, "lora_alpha": 7, "target_modules": "all-linear"},
    },
    # Sizes that no vector width divides, one key-value head, `rope_theta` in `rope_parameters`.
    "untied_odd": {
        "seed": 2,
        "steps": 10,
        "lengths": [7, 11],
        "config": {
            "hidden_size": 24, "num_hidden_layers": 3, "intermediate_size": 40, "num_attention_heads": 3,
            "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 59, "tie_word_embeddings": False,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
        },
        "lora": {"r": 5, "lora_alpha": 3, "target_modules": "all-linear"},
    },
    # heads * head_dim != hidden; alpha / sqrt(r), ranks and alphas by pattern, some modules, the upper layers.
    "mha_patterns": {
        "seed": 3,
        "steps": 10,
        "lengths": [10, 6, 13],
        "config": {
            "hidden_size": 20, "num_hidden_layers": 3, "intermediate_size": 37, "num_attention_heads": 4,
            "num_key_value_heads": 4, "head_dim": 6, "vocab_size": 61, "rope_theta": 10000.0,
            "tie_word_embeddings": False,
        },
        "lora": {
            "r": 4, "lora_alpha": 6, "use_rslora": True, "layers_to_transform": [1, 2],
            "target_modules": ["q_proj", "v_proj", "o_proj", "down_proj"],
            "rank_pattern": {"q_proj": 2, "layers.2.mlp.down_proj": 7},
            "alpha_pattern": {"v_proj": 5, "layers.2.mlp.down_proj": 9},
        },
    },
    # DoRA with biases nowhere and an odd rank; the magnitudes are away from their starting values.
    "dora": {
        "seed": 5,
        "steps": 10,
        "lengths": [8, 11, 6],
        "config": {
            "hidden_size": 24, "num_hidden_layers": 2, "intermediate_size": 36, "num_attention_heads": 3,
            "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 60, "rope_theta": 10000.0,
            "tie_word_embeddings": False,
        },
        "lora": {"r": 3, "lora_alpha": 5, "target_modules": "all-linear", "use_dora": True},
    },
    # Modules trained in full beside the pairs: the head of an untied model and all norms ("norm" ends every norm's path).
    "saved_modules": {
        "seed": 6,
        "steps": 10,
        "lengths": [7, 10],
        "config": {
            "hidden_size": 24, "num_hidden_layers": 2, "intermediate_size": 36, "num_attention_heads": 3,
            "num_key_value_heads": 3, "head_dim": 8, "vocab_size": 57, "rope_theta": 10000.0,
            "tie_word_embeddings": False,
        },
        "lora": {
            "r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "down_proj"], "modules_to_save": ["lm_head", "norm"],
        },
    },
    # A tied model whose token table is trained in full: PEFT trains a copy, the head stays.
    "saved_table": {
        "seed": 7,
        "steps": 8,
        "lengths": [7, 10],
        "config": {
            "hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 24, "num_attention_heads": 2,
            "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 57, "rope_theta": 10000.0,
            "tie_word_embeddings": True,
        },
        "lora": {"r": 2, "lora_alpha": 4, "target_modules": ["v_proj"], "modules_to_save": ["embed_tokens"]},
    },
    # Pairs on the token table and on the output head.
    "embedding": {
        "seed": 8,
        "steps": 8,
        "lengths": [9, 6],
        "config": {
            "hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 24, "num_attention_heads": 2,
            "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 53, "rope_theta": 10000.0,
            "tie_word_embeddings": False,
        },
        "lora": {"r": 3, "lora_alpha": 4, "target_modules": ["embed_tokens", "lm_head", "o_proj"]},
    },
    # The same with DoRA.
    "embedding_dora": {
        "seed": 9,
        "steps": 8,
        "lengths": [9, 6],
        "config": {
            "hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 24, "num_attention_heads": 2,
            "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 53, "rope_theta": 10000.0,
            "tie_word_embeddings": False,
        },
        "lora": {"r": 3, "lora_alpha": 4, "target_modules": ["embed_tokens", "lm_head", "o_proj"], "use_dora": True},
    },
    # Every weight trained: embedding shared with the head, projections and norms.
    "full": {
        "seed": 4,
        "steps": 5,
        "lengths": [8, 11, 4],
        "config": {
            "hidden_size": 24, "num_hidden_layers": 2, "intermediate_size": 40, "num_attention_heads": 3,
            "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 59, "rope_theta": 10000.0,
            "tie_word_embeddings": True,
        },
    },
}


def float64_norm(self, hidden):
    """RMSNorm in the input's own precision; transformers' class falls back to float32."""
    variance = hidden.pow(2).mean(-1, keepdim=True)
    return self.weight * (hidden * torch.rsqrt(variance + self.variance_epsilon))


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
    write_json(folder / "config.json", config)
    loaded = LlamaConfig.from_pretrained(folder)
    theta = case["config"].get("rope_theta") or case["config"]["rope_parameters"]["rope_theta"]
    assert loaded.rope_parameters["rope_theta"] == theta, "transformers read another rope_theta"
    tensors = {}
    for name, weight in LlamaForCausalLM(loaded).state_dict().items():
        noise = torch.randn(weight.shape, generator=generator)
        if weight.ndim == 1:
            tensors[name] = 1.0 + 0.2 * noise
        elif "embed_tokens" in name:
            tensors[name] = 0.5 * noise
        else:
            tensors[name] = 0.6 * noise / math.sqrt(weight.shape[1])
    if loaded.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def write_adapter(folder, base, case, generator):
    """peft's own files, with B no longer zero and no path of this machine in them."""
    config = peft.LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **case["lora"])
    model = peft.get_peft_model(LlamaForCausalLM.from_pretrained(base), config)
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
        ids = torch.randint(3, case["config"]["vocab_size"], (length,), generator=generator).tolist()
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


# --- Expectations --------------------------------------------------------------------------------


def load_model(folder, dtype):
    model = LlamaForCausalLM.from_pretrained(folder / "base", dtype=torch.float32, attn_implementation="sdpa")
    if (folder / "adapter").exists():
        model = peft.PeftModel.from_pretrained(model, folder / "adapter", is_trainable=True)
    return model.to(dtype).train()


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


def train(folder, steps, batch, dtype, decay_norms=True):
    """Tensors as expected.safetensors names them."""
    model = load_model(folder, dtype)
    weights = trained(model)
    optimizer = optimizer_for(list(weights.values()), decay_norms)
    out, losses, norms = {}, [], []
    for step in range(steps):
        optimizer.zero_grad()
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        loss = mean_loss(logits, batch["labels"])
        loss.backward()
        if step == 0:
            out = {"logits": logits.detach().clone(), "loss": loss.detach().reshape(1)}
            out |= {f"grad.{key}": weight.grad.clone() for key, weight in weights.items()}
        norm = torch.nn.utils.clip_grad_norm_(list(weights.values()), STEP["max_grad_norm"])
        optimizer.step()
        losses.append(loss.item())
        norms.append(norm.item())
    out |= {f"after.{key}": weight.detach() for key, weight in weights.items()}
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
    write_base(folder / "base", case, generator)
    if "lora" in case:
        write_adapter(folder / "adapter", folder / "base", case, generator)
    rows = make_rows(case, generator)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    batch = padded(rows)
    write_json(folder / "batch.json", batch)
    batch = {key: torch.tensor(value) for key, value in batch.items()}

    exact = train(folder, case["steps"], batch, torch.float64)
    difference = largest_difference(exact, train(folder, case["steps"], batch, torch.float32))
    assert difference < 2e-5, f"{folder.name}: float32 is {difference:.1e} away: the case is too unstable for a golden"
    if "lora" not in case:
        exact["losses_matrix_decay"] = train(folder, case["steps"], batch, torch.float64, decay_norms=False)["losses"]
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
    parser.add_argument("cases", nargs="*", help="only these")
    options = parser.parse_args()
    torch.set_num_threads(1)
    LlamaRMSNorm.forward = float64_norm
    for name in options.cases or CASES:
        case = CASES[name]
        difference = make_case(options.out / name, case)
        losses = load_file(options.out / name / "expected.safetensors")["losses"].tolist()
        print(f"{name}: loss {losses[0]:.4f} -> {losses[-1]:.4f}, float32 within {difference:.1e}")


if __name__ == "__main__":
    main()
