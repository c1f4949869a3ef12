#!/usr/bin/env python3
"""Time LoRA training steps of mlx-lm and of lazytune on a Mac, in turns, on the same weights and tokens.

  pip install mlx-lm
  cargo build --release --features metal
  python3 scripts/bench_vs_mlx.py --base MODEL --lazytune target/release/lazytune

Every configuration runs in a process of its own, `--rounds` times, in turns. mlx-lm's side is its own trainer
(mlx_lm.tuner.trainer.train), which evaluates loss, weights and optimizer state at the end of each step; lazytune's is
`lazytune bench`. Both get the same rows, all in one batch and the same in each step; LoRA with r = 8 and alpha = 16 (mlx:
scale = 2) on the seven linear modules of the last `--layers` layers (default: all), from one adapter that mlx-lm
initializes; AdamW with a learning rate of 2e-4, without decay, with bias correction, without clipping; no dropout. mlx
takes the last token of a row away before the model sees it, lazytune after: a row of n tokens costs mlx n - 1.

A variant of mlx (--variants, separated by commas) joins words with "+":

  f32         base in float32
  bf16        base in bfloat16, adapter in float32, as mlx-lm has it
  checkpoint  activations of layers are computed twice
  cache       freed memory is kept between steps; mlx-lm gives it back after each one

--lazytune-variant "NAME: KEY=VALUE ..." (repeatable) adds a configuration of lazytune. A name that starts with bf16 is
compared with mlx in bf16.

Times are medians over the steps behind the warm-up, then over the rounds; tokens per second count every token of the
batch. A table for each shape goes to stderr, JSON to stdout. Losses of the first three steps must agree within 0.1% (bf16:
1% at the first step, 5% later): if not, or if a configuration fails in every round, the exit code is 1.

Without a Mac, both sides run on the CPU, which shows that the script works and that losses agree, and says nothing about
speed.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import step_timing

WORDS = {"f32", "bf16", "checkpoint", "cache"}
VARIANTS = "f32,bf16,bf16+cache"
LAZYTUNE_VARIANTS = ["f32: model.dtype=f32", "bf16: model.dtype=bf16"]
# Relative, at the first step and later.
TOLERANCES = {"f32": (1e-3, 1e-3), "bf16": (1e-2, 5e-2)}
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RANK, ALPHA = 8, 16
ON_A_MAC = sys.platform == "darwin"


# --- Inside a process of mlx ---------------------------------------------------------------------


def lora_model(job, dtype):
    """The model with fresh adapters, and the adapted modules by path."""
    from mlx_lm.tuner.lora import LoRALinear
    from mlx_lm.tuner.utils import linear_to_lora_layers
    from mlx_lm.utils import load_model

    model, _ = load_model(Path(job["base"]))
    model.set_dtype(dtype)
    model.freeze()
    layers = len(model.layers) if job["layers"] is None else job["layers"]
    keys = {path for path, _ in model.layers[0].named_modules() if path.split(".")[-1] in MODULES}
    linear_to_lora_layers(model, layers, {"rank": RANK, "scale": ALPHA / RANK, "dropout": 0.0, "keys": keys})
    return model, {path: module for path, module in model.named_modules() if isinstance(module, LoRALinear)}


def weight_name(path, side):
    return f"base_model.model.{path}.lora_{side}.weight"


def save_adapter(job):
    """The adapter that every configuration starts from, as peft lays it out: mlx-lm's own initialization."""
    import mlx.core as mx

    mx.random.seed(0)
    model, adapted = lora_model(job, mx.float32)
    # mlx multiplies from the right: its matrices are peft's transposed.
    weights = {weight_name(path, "A"): mx.contiguous(module.lora_a.T) for path, module in adapted.items()}
    weights |= {weight_name(path, "B"): mx.contiguous(module.lora_b.T) for path, module in adapted.items()}
    folder = Path(job["adapter"])
    folder.mkdir()
    mx.save_safetensors(str(folder / "adapter_model.safetensors"), weights)
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": ALPHA, "lora_dropout": 0.0,
        "bias": "none", "target_modules": MODULES, "base_model_name_or_path": job["base"],
    }
    if job["layers"] is not None:
        count = len(model.layers)
        config["layers_to_transform"] = list(range(max(0, count - job["layers"]), count))
    (folder / "adapter_config.json").write_text(json.dumps(config))
    print(json.dumps({"modules": len(adapted)}))


def run_mlx(job):
    import mlx.core as mx
    import mlx.optimizers
    from mlx_lm.tuner.callbacks import TrainingCallback
    from mlx_lm.tuner.trainer import TrainingArgs, train

    words = set(job["words"])
    model, adapted = lora_model(job, mx.bfloat16 if "bf16" in words else mx.float32)
    saved = mx.load(str(Path(job["adapter"]) / "adapter_model.safetensors"))
    for path, module in adapted.items():
        module.lora_a, module.lora_b = (saved[weight_name(path, side)].T for side in "AB")
    mx.eval(model.parameters())
    step_ms, losses, peaks = [], [], []

    class Steps(TrainingCallback):
        def on_train_loss_report(self, train_info):
            step_ms.append(1e3 / train_info["iterations_per_second"])
            losses.append(train_info["train_loss"])
            peaks.append(train_info["peak_memory"] * 1e9)

    rows = job["rows"]
    # A row with the place from which on its tokens are learned.
    dataset = [(row["input_ids"], sum(label == -100 for label in row["labels"])) for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArgs(
            batch_size=len(rows),
            iters=job["warmup"] + job["steps"],
            steps_per_report=1,
            steps_per_save=1 << 30,
            max_seq_length=len(rows[0]["input_ids"]),
            adapter_file=str(Path(folder) / "adapters.safetensors"),
            grad_checkpoint="checkpoint" in words,
            clear_cache_threshold=1 << 62 if "cache" in words else 0,
        )
        optimizer = mlx.optimizers.AdamW(learning_rate=2e-4, weight_decay=0.0, bias_correction=True)
        train(model, optimizer, dataset, args=args, training_callback=Steps())
    device = str(mx.default_device())
    print(json.dumps({"step_ms": step_ms, "losses": losses, "peak_mlx_bytes": max(peaks), "device": device}))


# --- The interleaved runs ------------------------------------------------------------------------


def mlx_run(options, words, rows, adapter):
    job = {
        "base": str(options.base.resolve()), "adapter": str(adapter), "layers": options.layers, "words": words,
        "rows": rows, "warmup": options.warmup, "steps": options.steps,
    }
    return step_timing.python_run(__file__, job, {})


def configurations(options):
    """Name -> a function of rows and adapter that runs it once."""
    runs = {}
    for variant in filter(None, (part.strip() for part in options.variants.split(","))):
        words = variant.split("+")
        if unknown := set(words) - WORDS:
            sys.exit(f"unknown variant word {sorted(unknown)[0]!r}; known: {', '.join(sorted(WORDS))}")
        runs[f"mlx {variant}"] = lambda *shape, words=words: mlx_run(options, words, *shape)
    if options.lazytune:
        for variant in options.lazytune_variant or LAZYTUNE_VARIANTS:
            name, _, settings = variant.partition(":")
            settings = settings.split()
            runs[f"lazytune {name.strip()}"] = lambda *shape, settings=settings: step_timing.lazytune_run(
                options, settings, *shape, device="metal" if ON_A_MAC else "cpu", max_grad_norm=0.0
            )
    return runs


def measure(options, batch, sequence, runs, adapter):
    results = step_timing.in_turns(options, batch, sequence, runs, adapter)
    table = {name: step_timing.summary(options, batch * sequence, outcomes) for name, outcomes in results.items()}
    step_timing.compare(table)
    return {
        "batch": batch, "sequence": sequence, "supervised": options.supervised, "layers": options.layers,
        "rounds": options.rounds, "steps": options.steps, "warmup": options.warmup, "platform": sys.platform,
        "results": table, "disagreements": step_timing.disagreements(table, "mlx", TOLERANCES),
    }


def show(shape):
    title = f"{shape['batch']} x {shape['sequence']}"
    print(f"\n{title:28} {'ms/step':>9} {'tok/s':>8} {'x ours':>7}  first losses", file=sys.stderr)
    for name, row in shape["results"].items():
        if "error" in row:
            print(f"{name:28} failed: {row['error']}", file=sys.stderr)
            continue
        ratio = f"{row['times_lazytune']:7.2f}" if "times_lazytune" in row else f"{'-':>7}"
        speed = f"{row['step_ms']:9.1f} {row['tokens_per_second']:8.1f} {ratio}"
        print(f"{name:28} {speed}  {row['losses']}", file=sys.stderr)
    for problem in shape["disagreements"]:
        print(f"LOSSES DISAGREE: {problem}", file=sys.stderr)
    if not ON_A_MAC:
        print("not a Mac: mlx and lazytune ran on the CPU; these times compare nothing", file=sys.stderr)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    step_timing.add_arguments(parser)
    parser.add_argument("--variants", default=VARIANTS, help="of mlx; default: %(default)s; empty for none")
    parser.add_argument("--layers", type=step_timing.count, help="last layers that get adapters; default: all")
    options = parser.parse_args()
    if not options.job and not options.base:
        parser.error("--base is required")
    return options


def check_rope(base):
    """mlx-lm takes 10000 where a config.json has no rope_theta of its own, as those that transformers 5 writes."""
    config = json.loads((base / "config.json").read_text())
    if "rope_parameters" in config and "rope_theta" not in config:
        sys.exit(f"{base}/config.json has its rope_theta in rope_parameters only, where mlx-lm does not look: copy it to the top level")


def main():
    options = arguments()
    if options.job:
        job = json.loads(options.job.read_text())
        (run_mlx if "rows" in job else save_adapter)(job)
        return
    check_rope(options.base)
    runs = configurations(options)
    with tempfile.TemporaryDirectory() as folder:
        adapter = Path(folder) / "adapter"
        job = {"base": str(options.base.resolve()), "adapter": str(adapter), "layers": options.layers}
        saved = step_timing.python_run(__file__, job, {})
        if "error" in saved:
            sys.exit(f"mlx-lm cannot make an adapter: {saved['error']}")
        measured = []
        for batch, sequence in options.shapes:
            measured.append(measure(options, batch, sequence, runs, adapter))
            show(measured[-1])
    print(json.dumps(measured, indent=2))
    failed = any("error" in row for shape in measured for row in shape["results"].values())
    sys.exit(1 if failed or any(shape["disagreements"] for shape in measured) else 0)


if __name__ == "__main__":
    main()
