#!/usr/bin/env python3
"""Time LoRA training steps of Python's peft, interleaved with lazytune's, on one base model and batch shape.

  pip install -r scripts/requirements-goldens.txt
  python3 scripts/bench_vs_peft.py --base MODEL --batch 4 --seq 256 \\
      --variants f32,medium+tcmalloc,bf16+compile --lazytune target/release/lazytune

Every configuration runs in a process of its own, `--rounds` times, in turn, so that a slow minute of the machine hits
all of them. A step is forward, backward, clipping and AdamW on the same random, fully supervised rows; the loss is
read after each. r = 8, alpha = 16, every linear layer but the head.

A variant joins words with "+":

  f32       as installed (also what "" means)
  medium    torch.set_float32_matmul_precision("medium"): bf16 products where the processor has them
  bf16      base and adapter in bfloat16
  compile   torch.compile of the model
  tcmalloc  LD_PRELOAD of tcmalloc (--tcmalloc says where it is)

lazytune is called as `lazytune bench CONFIG --json --set KEY=VALUE ...` (lazytune_command) and must print one JSON
object with step_ms (a list) and losses (lazytune_result). --lazytune-variant "NAME: KEY=VALUE ..." adds settings.

Prints a table on stderr and JSON on stdout. Times are medians over the steps behind the warm-up, tokens per second
count every token of the batch, and the peak is the process's largest resident set as the kernel counted it.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = {"", "f32", "medium", "bf16", "compile", "tcmalloc"}
TCMALLOC = "/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4"


def random_rows(options):
    vocabulary = json.loads((options.base / "config.json").read_text())["vocab_size"]
    source = random.Random(options.seed)
    return [[source.randrange(vocabulary) for _ in range(options.seq)] for _ in range(options.batch)]


# --- Inside the process of one peft configuration ------------------------------------------------


def peft_model(base, words):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    if "medium" in words:
        torch.set_float32_matmul_precision("medium")
    dtype = torch.bfloat16 if "bf16" in words else torch.float32
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    model.config.use_cache = False
    # peft keeps adapters in f32 over a bf16 base unless told otherwise.
    model = get_peft_model(
        model,
        LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear"),
        autocast_adapter_dtype="bf16" not in words,
    )
    model.train()
    return torch.compile(model) if "compile" in words else model


def run_peft(job):
    import torch

    torch.set_num_threads(job["threads"])
    model = peft_model(job["base"], set(job["words"]))
    ids = torch.tensor(job["rows"])
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=2e-4, weight_decay=0.0)
    step_ms, losses = [], []
    for _ in range(job["warmup"] + job["steps"]):
        start = time.perf_counter()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        step_ms.append((time.perf_counter() - start) * 1e3)
    print(json.dumps({"step_ms": step_ms, "losses": losses}))


# --- lazytune ------------------------------------------------------------------------------------


def write_lazytune_config(folder, options, rows):
    """A training configuration for the same rows; the settings are those of run_peft."""
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps({"input_ids": row, "labels": row}) + "\n" for row in rows))
    config = folder / "bench.toml"
    config.write_text(
        f"""[model]
path = {json.dumps(str(options.base.resolve()))}
dtype = "f32"
device = "cpu"
threads = {options.threads}

[data]
train = [{json.dumps(str(data))}]
validation = "none"
max_length = {options.seq}
shuffle = false
packing = false

[adapter]
method = "lora"
r = 8
alpha = 16
target_modules = "all-linear"

[optimizer]
learning_rate = 2e-4
weight_decay = 0.0
max_grad_norm = 1.0

[schedule]
name = "constant"
warmup_steps = 0

[train]
batch_size = {options.batch}
max_steps = {options.warmup + options.steps}
eval_steps = 0
save_steps = 0
output_dir = {json.dumps(str(folder / "run"))}
"""
    )
    return config


def lazytune_command(options, config, settings):
    command = [str(options.lazytune.resolve()), "bench", str(config), "--json"]
    for setting in settings:
        command += ["--set", setting]
    return command


def lazytune_result(output):
    """The last JSON object printed; step_ms includes the warm-up steps."""
    start = output.find("{")
    if start < 0:
        raise ValueError("no JSON in lazytune's output")
    result = json.loads(output[start:])
    return {"step_ms": result["step_ms"], "losses": result["losses"]}


# --- The interleaved runs ------------------------------------------------------------------------


def spawn(command, environment):
    """(exit code, stdout, stderr, peak resident bytes)."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env={**os.environ, **environment})
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        texts = [stream.read().decode("utf-8", "replace") for stream in (out, err)]
    unit = 1 if sys.platform == "darwin" else 1024
    return process.returncode, *texts, usage.ru_maxrss * unit


def peft_run(options, words, rows):
    job = {
        "base": str(options.base), "words": words, "rows": rows,
        "threads": options.threads, "warmup": options.warmup, "steps": options.steps,
    }
    preloaded = [options.tcmalloc, *os.environ.get("LD_PRELOAD", "").split()]
    environment = {"LD_PRELOAD": " ".join(preloaded)} if "tcmalloc" in words else {}
    # The job travels in a file: the rows of a large batch are longer than an argument may be.
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(job, file)
        file.flush()
        code, out, err, peak = spawn([sys.executable, __file__, "--job", file.name], environment)
    return (json.loads(out.splitlines()[-1]), peak) if code == 0 else (last_words(err), 0)


def lazytune_run(options, settings, rows):
    with tempfile.TemporaryDirectory() as folder:
        config = write_lazytune_config(Path(folder), options, rows)
        command = lazytune_command(options, config, settings)
        code, out, err, peak = spawn(command, {})
    if code != 0:
        return last_words(err), 0
    try:
        return lazytune_result(out), peak
    except (ValueError, KeyError) as error:
        return {"error": f"unexpected output of lazytune bench: {error!r}"}, 0


def last_words(text):
    return {"error": "\n".join(text.strip().splitlines()[-6:])}


def summary(options, runs):
    """One configuration's figures over its rounds."""
    good = [(result, peak) for result, peak in runs if "error" not in result]
    if not good:
        return {"error": runs[-1][0]["error"]}
    medians = [statistics.median(result["step_ms"][options.warmup :]) for result, _ in good]
    step_ms = statistics.median(medians)
    return {
        "step_ms": round(step_ms, 2),
        "round_medians_ms": [round(value, 2) for value in medians],
        "tokens_per_second": round(options.batch * options.seq / step_ms * 1e3, 1),
        "first_step_ms": round(good[0][0]["step_ms"][0], 2),
        "peak_rss_mib": round(max(peak for _, peak in good) / 2**20, 1),
        "losses": [round(loss, 6) for loss in good[0][0]["losses"][:3]],
        "failed_rounds": len(runs) - len(good),
    }


def configurations(options):
    """Name -> a function of the rows that runs it once."""
    runs = {}
    for variant in options.variants.split(","):
        words = variant.strip().split("+")
        if unknown := set(words) - WORDS:
            sys.exit(f"unknown variant word {sorted(unknown)[0]!r}; known: {', '.join(sorted(WORDS - {''}))}")
        runs["peft " + (variant.strip() or "f32")] = lambda rows, words=words: peft_run(options, words, rows)
    if options.lazytune:
        for variant in options.lazytune_variant or ["f32:"]:
            name, _, settings = variant.partition(":")
            settings = settings.split()
            runs["lazytune " + name] = lambda rows, settings=settings: lazytune_run(options, settings, rows)
    return runs


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, help="folder with config.json and safetensors")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seq", type=int, default=256)
    parser.add_argument("--steps", type=int, default=8, help="timed steps of a round")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--variants", default="f32", help='comma-separated, such as "f32,medium+tcmalloc"')
    parser.add_argument("--tcmalloc", default=TCMALLOC)
    parser.add_argument("--lazytune", type=Path, help="the lazytune binary")
    parser.add_argument("--lazytune-variant", action="append", help='"NAME: KEY=VALUE ..."; may be repeated')
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.job and not options.base:
        parser.error("--base is required")
    return options


def main():
    options = arguments()
    if options.job:
        run_peft(json.loads(options.job.read_text()))
        return
    rows = random_rows(options)
    runs = configurations(options)
    results = {name: [] for name in runs}
    load_before = os.getloadavg()[0]
    for number in range(options.rounds):
        for name, run in runs.items():
            results[name].append(run(rows))
            print(f"round {number + 1}: {name} done", file=sys.stderr)
    table = {name: summary(options, outcomes) for name, outcomes in results.items()}
    print(f"{'':32} {'ms/step':>9} {'tok/s':>9} {'peak MiB':>9}  first losses", file=sys.stderr)
    for name, row in table.items():
        if "error" in row:
            print(f"{name:32} failed: {row['error']}", file=sys.stderr)
        else:
            figures = f"{row['step_ms']:9.1f} {row['tokens_per_second']:9.1f} {row['peak_rss_mib']:9.1f}"
            print(f"{name:32} {figures}  {row['losses']}", file=sys.stderr)
    shape = {"batch": options.batch, "seq": options.seq, "threads": options.threads, "rounds": options.rounds}
    # A load above zero before the first run means that other work shared the cores: such times are worth little.
    print(json.dumps({"shape": shape, "load_before": round(load_before, 2), "results": table}, indent=2))


if __name__ == "__main__":
    main()
