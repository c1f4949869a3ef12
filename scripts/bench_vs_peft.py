#!/usr/bin/env python3
"""Time LoRA training steps of Python's peft and of lazytune, in turns, on the same weights and tokens.

  pip install -r scripts/requirements-goldens.txt
  cargo build --release
  python3 scripts/bench_vs_peft.py --base MODEL --lazytune target/release/lazytune

Every configuration runs in a process of its own, `--rounds` times, in turns, so that a slow minute of the machine hits
all of them. A step is forward, backward, clipping and AdamW on the same random rows; the loss is read after each. LoRA
with r = 8 and alpha = 16 on every linear layer but the head; all start from one adapter, which peft initializes.

A variant of peft (--variants, separated by commas) joins words with "+":

  f32       as installed
  bf16      base and adapter in bfloat16 (with f32adapter: the adapter in f32, as peft has it by default)
  medium    torch.set_float32_matmul_precision("medium"): oneDNN's kernels, on some machines with bf16 products
  compile   torch.compile of the model
  tcmalloc  LD_PRELOAD of tcmalloc (--tcmalloc says where it is)

--lazytune-variant "NAME: KEY=VALUE ..." (repeatable) adds a configuration of lazytune. A name that starts with bf16 is
compared with the losses of peft in bf16.

Times are medians over the steps behind the warm-up, then over the rounds; tokens per second count every token of the
batch; the peak is the process's largest resident set. "of floor" is the step's needed arithmetic at the peak that
lazytune measures beside its steps (f32 multiply-adds, or bf16 dot products), as a share of the time. A table for each
shape goes to stderr, JSON to stdout. Losses of the first steps must agree: if not, or if a configuration fails in every
round, the exit code is 1.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import step_timing

WORDS = {"f32", "bf16", "f32adapter", "medium", "compile", "tcmalloc"}
VARIANTS = "f32,medium+tcmalloc+compile,bf16,bf16+tcmalloc+compile"
LAZYTUNE_VARIANTS = ["f32: model.dtype=f32", "bf16: model.dtype=bf16"]
# Relative, at the first step and later. Rounding differs: f32 sums in another order, bf16 keeps 8 bits, and adapters in
# bf16 take other steps than adapters in f32.
TOLERANCES = {"f32": (1e-3, 1e-3), "medium": (1e-2, 1e-2), "bf16": (1e-2, 5e-2)}
TCMALLOC = "/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4"


# --- Inside a process of peft --------------------------------------------------------------------


def base_model(base, dtype):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    model.config.use_cache = False
    return model


def save_adapter(job):
    """The adapter that every configuration starts from: peft's own initialization."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear")
    get_peft_model(base_model(job["base"], torch.float32), config).save_pretrained(job["adapter"])
    print("{}")


def peft_model(job, words):
    import torch
    from peft import PeftModel

    if "medium" in words:
        torch.set_float32_matmul_precision("medium")
    base = base_model(job["base"], torch.bfloat16 if "bf16" in words else torch.float32)
    in_bf16 = "bf16" in words and "f32adapter" not in words
    model = PeftModel.from_pretrained(base, job["adapter"], is_trainable=True, autocast_adapter_dtype=not in_bf16)
    if in_bf16:
        model.to(torch.bfloat16)
    model.train()
    return torch.compile(model) if "compile" in words else model


def run_peft(job):
    import torch

    torch.set_num_threads(job["threads"])
    model = peft_model(job, set(job["words"]))
    ids, labels = (torch.tensor([row[key] for row in job["rows"]]) for key in ("input_ids", "labels"))
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=2e-4, weight_decay=0.0)
    step_ms, losses = [], []
    for _ in range(job["warmup"] + job["steps"]):
        start = time.perf_counter()
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        step_ms.append((time.perf_counter() - start) * 1e3)
    print(json.dumps({"step_ms": step_ms, "losses": losses}))


# --- The interleaved runs ------------------------------------------------------------------------


def peft_run(options, words, rows, adapter):
    job = {
        "base": str(options.base), "adapter": str(adapter), "words": words, "rows": rows,
        "threads": options.threads, "warmup": options.warmup, "steps": options.steps,
    }
    preloaded = [options.tcmalloc, *os.environ.get("LD_PRELOAD", "").split()]
    return step_timing.python_run(__file__, job, {"LD_PRELOAD": " ".join(preloaded)} if "tcmalloc" in words else {})


def configurations(options):
    """Name -> a function of rows and adapter that runs it once."""
    runs = {}
    for variant in filter(None, (part.strip() for part in options.variants.split(","))):
        words = variant.split("+")
        if unknown := set(words) - WORDS:
            sys.exit(f"unknown variant word {sorted(unknown)[0]!r}; known: {', '.join(sorted(WORDS))}")
        runs[f"peft {variant}"] = lambda *shape, words=words: peft_run(options, words, *shape)
    if options.lazytune:
        for variant in options.lazytune_variant or LAZYTUNE_VARIANTS:
            name, _, settings = variant.partition(":")
            settings = settings.split()
            runs[f"lazytune {name.strip()}"] = lambda *shape, settings=settings: step_timing.lazytune_run(
                options, settings, *shape
            )
    return runs


def measure(options, batch, sequence, runs, adapter):
    """All configurations on one shape, in turns."""
    # A load above zero before the first run means that other work shared the cores: such times are worth little.
    load_before = os.getloadavg()[0]
    results = step_timing.in_turns(options, batch, sequence, runs, adapter)
    table = {name: step_timing.summary(options, batch * sequence, outcomes) for name, outcomes in results.items()}
    step_timing.compare(table)
    return {
        "batch": batch, "sequence": sequence, "supervised": options.supervised, "threads": options.threads,
        "rounds": options.rounds, "steps": options.steps, "warmup": options.warmup,
        "load_before": round(load_before, 2), "results": table, "disagreements": step_timing.disagreements(table, "peft", TOLERANCES),
    }


def show(shape):
    title = f"{shape['batch']} x {shape['sequence']}"
    heads = f"{'ms/step':>9} {'tok/s':>8} {'x ours':>7} {'of floor':>8} {'peak MB':>8}"
    print(f"\n{title:36} {heads}  first losses", file=sys.stderr)
    for name, row in shape["results"].items():
        if "error" in row:
            print(f"{name:36} failed: {row['error']}", file=sys.stderr)
            continue
        ratio = f"{row['times_lazytune']:7.2f}" if "times_lazytune" in row else f"{'-':>7}"
        floor = f"{row['percent_of_floor']:7.1f}%" if "percent_of_floor" in row else f"{'-':>8}"
        speed = f"{row['step_ms']:9.1f} {row['tokens_per_second']:8.1f} {ratio} {floor}"
        print(f"{name:36} {speed} {row['peak_rss_bytes'] / 1e6:8.0f}  {row['losses']}", file=sys.stderr)
    for problem in shape["disagreements"]:
        print(f"LOSSES DISAGREE: {problem}", file=sys.stderr)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    step_timing.add_arguments(parser)
    parser.add_argument("--variants", default=VARIANTS, help="of peft; default: %(default)s; empty for none")
    parser.add_argument("--tcmalloc", default=TCMALLOC)
    options = parser.parse_args()
    if not options.job and not options.base:
        parser.error("--base is required")
    return options


def main():
    options = arguments()
    if options.job:
        job = json.loads(options.job.read_text())
        (run_peft if "rows" in job else save_adapter)(job)
        return
    runs = configurations(options)
    with tempfile.TemporaryDirectory() as folder:
        adapter = Path(folder) / "adapter"
        saved = step_timing.python_run(__file__, {"base": str(options.base), "adapter": str(adapter)}, {})
        if "error" in saved:
            sys.exit(f"peft cannot make an adapter: {saved['error']}")
        measured = []
        for batch, sequence in options.shapes:
            measured.append(measure(options, batch, sequence, runs, adapter))
            show(measured[-1])
    print(json.dumps(measured, indent=2))
    failed = any("error" in row for shape in measured for row in shape["results"].values())
    sys.exit(1 if failed or any(shape["disagreements"] for shape in measured) else 0)


if __name__ == "__main__":
    main()
