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
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = {"f32", "bf16", "f32adapter", "medium", "compile", "tcmalloc"}
VARIANTS = "f32,medium+tcmalloc+compile,bf16,bf16+tcmalloc+compile"
LAZYTUNE_VARIANTS = ["f32: model.dtype=f32", "bf16: model.dtype=bf16"]
COMPARED_LOSSES = 3
# Relative, at the first step and later. Rounding differs: f32 sums in another order, bf16 keeps 8 bits, and adapters in
# bf16 take other steps than adapters in f32.
TOLERANCES = {"f32": (1e-3, 1e-3), "medium": (1e-2, 1e-2), "bf16": (1e-2, 5e-2)}
TCMALLOC = "/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4"


def random_rows(options, batch, sequence):
    """Token ids, and labels that leave out all but the last part of each row."""
    vocabulary = json.loads((options.base / "config.json").read_text())["vocab_size"]
    source = random.Random(options.seed)
    rows = []
    for _ in range(batch):
        ids = [source.randrange(vocabulary) for _ in range(sequence)]
        ignored = sequence - max(2, round(sequence * options.supervised))
        rows.append({"input_ids": ids, "labels": [-100] * ignored + ids[ignored:]})
    return rows


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


# --- lazytune ------------------------------------------------------------------------------------


def write_lazytune_config(folder, options, rows, adapter):
    """A training configuration for the same rows; the settings are those of run_peft."""
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = folder / "bench.toml"
    config.write_text(
        f"""[model]
path = {json.dumps(str(options.base.resolve()))}
device = "cpu"
threads = {options.threads}

[data]
train = [{json.dumps(str(data))}]
validation = "none"
max_length = {len(rows[0]["input_ids"])}
shuffle = false

[adapter]
init = {json.dumps(str(adapter))}

[optimizer]
learning_rate = 2e-4
weight_decay = 0.0
max_grad_norm = 1.0

[schedule]
name = "constant"
warmup_steps = 0

[train]
batch_size = {len(rows)}
max_steps = {options.warmup + options.steps}
eval_steps = 0
save_steps = 0
output_dir = {json.dumps(str(folder / "run"))}
"""
    )
    return config


def lazytune_command(options, config, settings):
    command = [str(options.lazytune.resolve()), "bench", str(config), "--json"]
    command += ["--steps", str(options.steps), "--warmup", str(options.warmup)]
    for setting in settings:
        command += ["--set", setting]
    return command


def lazytune_result(output):
    """step_ms includes the warm-up steps; the floor is in ms, too."""
    result = json.loads(output)
    arithmetic, memory = result["arithmetic"], result["memory"]
    return {
        "step_ms": result["step_ms"],
        "losses": result["losses"],
        "floor_ms": arithmetic["floor_ms"],
        "peak_rss": memory["process_peak_bytes"] or 0,
        "planned_bytes": memory["planned_bytes"]["total"],
    }


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


def python_run(job, environment):
    # The job travels in a file: the rows of a large batch are longer than an argument may be.
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(job, file)
        file.flush()
        code, out, err, peak = spawn([sys.executable, __file__, "--job", file.name], environment)
    return {**json.loads(out.splitlines()[-1]), "peak_rss": peak} if code == 0 else last_words(err)


def peft_run(options, words, rows, adapter):
    job = {
        "base": str(options.base), "adapter": str(adapter), "words": words, "rows": rows,
        "threads": options.threads, "warmup": options.warmup, "steps": options.steps,
    }
    preloaded = [options.tcmalloc, *os.environ.get("LD_PRELOAD", "").split()]
    return python_run(job, {"LD_PRELOAD": " ".join(preloaded)} if "tcmalloc" in words else {})


def lazytune_run(options, settings, rows, adapter):
    with tempfile.TemporaryDirectory() as folder:
        config = write_lazytune_config(Path(folder), options, rows, adapter)
        code, out, err, peak = spawn(lazytune_command(options, config, settings), {})
    if code != 0:
        return last_words(err)
    try:
        result = lazytune_result(out)
    except (ValueError, KeyError) as error:
        return {"error": f"unexpected output of lazytune bench: {error!r}"}
    return {**result, "peak_rss": max(peak, result["peak_rss"])}


def last_words(text):
    return {"error": "\n".join(text.strip().splitlines()[-6:])}


def summary(options, tokens, runs):
    """One configuration's figures over its rounds."""
    good = [result for result in runs if "error" not in result]
    if not good:
        return {"error": runs[-1]["error"]}
    medians = [statistics.median(result["step_ms"][options.warmup :]) for result in good]
    step_ms = statistics.median(medians)
    row = {
        "step_ms": round(step_ms, 2),
        "round_medians_ms": [round(value, 2) for value in medians],
        "tokens_per_second": round(tokens / step_ms * 1e3, 1),
        "first_step_ms": round(good[0]["step_ms"][0], 2),
        "peak_rss_bytes": max(result["peak_rss"] for result in good),
        "losses": [round(loss, 6) for loss in good[0]["losses"][:COMPARED_LOSSES]],
        "failed_rounds": len(runs) - len(good),
    }
    if "floor_ms" in good[0]:
        floors = [result["floor_ms"] for result in good if result["floor_ms"]]
        row["floor_ms"] = round(min(floors), 2) if floors else None
        row["planned_bytes"] = good[0]["planned_bytes"]
    return row


def type_of(name):
    """A configuration's floating-point type, by its name."""
    return "bf16" if "bf16" in name.split(" ")[1] else "f32"


def complete(table):
    """Adds what compares configurations: ratios to lazytune in the same type (else its first), and the floor."""
    ours = {}
    for name, row in table.items():
        if name.startswith("lazytune ") and "error" not in row:
            ours.setdefault(type_of(name), row)
    for name, row in table.items():
        if "error" in row:
            continue
        same = ours.get(type_of(name))
        reference = same or next(iter(ours.values()), None)
        if reference:
            row["times_lazytune"] = round(row["step_ms"] / reference["step_ms"], 3)
        if same and same.get("floor_ms"):
            row["percent_of_floor"] = round(100 * same["floor_ms"] / row["step_ms"], 1)


def disagreements(table):
    """Pairs of lazytune and peft whose first losses differ by more than rounding explains."""
    found = []
    good = {name: row for name, row in table.items() if "error" not in row}
    for ours in (name for name in good if name.startswith("lazytune ")):
        for theirs in (name for name in good if name.startswith("peft ")):
            kinds = {type_of(ours), type_of(theirs), "medium" if "medium" in theirs else "f32"}
            for step, (a, b) in enumerate(zip(good[ours]["losses"], good[theirs]["losses"])):
                tolerance = max(TOLERANCES[kind][min(step, 1)] for kind in kinds)
                # Written so that NaN disagrees.
                if not abs(a - b) <= tolerance * abs(b):
                    found.append(f"{ours} and {theirs} at step {step + 1}: loss {a} and {b}, allowed {tolerance:.1%}")
                    break
    return found


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
            runs[f"lazytune {name.strip()}"] = lambda *shape, settings=settings: lazytune_run(
                options, settings, *shape
            )
    return runs


def measure(options, batch, sequence, runs, adapter):
    """All configurations on one shape, in turns."""
    rows = random_rows(options, batch, sequence)
    results = {name: [] for name in runs}
    # A load above zero before the first run means that other work shared the cores: such times are worth little.
    load_before = os.getloadavg()[0]
    for number in range(options.rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            results[name].append(run(rows, adapter))
            took = time.perf_counter() - start
            failed = " FAILED" if "error" in results[name][-1] else ""
            print(f"{batch}x{sequence} round {number + 1}: {name}: {took:.0f} s{failed}", file=sys.stderr, flush=True)
    table = {name: summary(options, batch * sequence, outcomes) for name, outcomes in results.items()}
    complete(table)
    return {
        "batch": batch, "sequence": sequence, "supervised": options.supervised, "threads": options.threads,
        "rounds": options.rounds, "steps": options.steps, "warmup": options.warmup,
        "load_before": round(load_before, 2), "results": table, "disagreements": disagreements(table),
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


def shapes(text):
    """4x512,1x256 -> [(4, 512), (1, 256)]"""
    try:
        pairs = [tuple(int(part) for part in shape.split("x")) for shape in text.split(",")]
    except ValueError:
        pairs = [()]
    if any(len(pair) != 2 or pair[0] < 1 or pair[1] < 2 for pair in pairs):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list such as 4x512,1x256")
    return pairs


def share(text):
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0 and at most 1")
    return value


def count(text):
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not 1 or more")
    return int(text)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, help="folder with config.json and safetensors")
    parser.add_argument("--shapes", type=shapes, default="4x512", help='rows x tokens, such as "4x512,1x256"')
    parser.add_argument("--supervised", type=share, default=1.0, help="share of each row's end that carries loss")
    parser.add_argument("--steps", type=count, default=6, help="timed steps of a round")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them")
    parser.add_argument("--rounds", type=count, default=3)
    parser.add_argument("--threads", type=count, default=os.cpu_count())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--variants", default=VARIANTS, help="of peft; default: %(default)s; empty for none")
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
        job = json.loads(options.job.read_text())
        (run_peft if "rows" in job else save_adapter)(job)
        return
    runs = configurations(options)
    with tempfile.TemporaryDirectory() as folder:
        adapter = Path(folder) / "adapter"
        saved = python_run({"base": str(options.base), "adapter": str(adapter)}, {})
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
