"""What the benches beside other trainers share: rows, lazytune's side, processes in turns, figures of rounds.

Every run is a process of its own. A result is {"step_ms", "losses", "peak_rss"}, warm-up steps included, or {"error"}.
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

COMPARED_LOSSES = 3


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


def write_lazytune_config(folder, options, rows, adapter, device, max_grad_norm):
    """A training configuration for the same rows and the other trainer's settings."""
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = folder / "bench.toml"
    config.write_text(
        f"""[model]
path = {json.dumps(str(options.base.resolve()))}
device = "{device}"
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
max_grad_norm = {max_grad_norm}

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


def python_run(script, job, environment):
    """Runs `script --job FILE`, which prints its result as JSON on the last line."""
    # The job travels in a file: the rows of a large batch are longer than an argument may be.
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(job, file)
        file.flush()
        code, out, err, peak = spawn([sys.executable, script, "--job", file.name], environment)
    return {**json.loads(out.splitlines()[-1]), "peak_rss": peak} if code == 0 else last_words(err)


def lazytune_run(options, settings, rows, adapter, device="cpu", max_grad_norm=1.0):
    with tempfile.TemporaryDirectory() as folder:
        config = write_lazytune_config(Path(folder), options, rows, adapter, device, max_grad_norm)
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


def compare(table):
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


def disagreements(table, other, tolerances):
    """Pairs of lazytune and the other trainer whose first losses differ by more than rounding explains.

    `tolerances` are relative, at the first step and later, by words of a configuration's name.
    """
    found = []
    good = {name: row for name, row in table.items() if "error" not in row}
    for ours in (name for name in good if name.startswith("lazytune ")):
        for theirs in (name for name in good if name.startswith(f"{other} ")):
            kinds = {type_of(ours), type_of(theirs), *(word for word in tolerances if word in theirs)}
            for step, (a, b) in enumerate(zip(good[ours]["losses"], good[theirs]["losses"])):
                tolerance = max(tolerances[kind][min(step, 1)] for kind in kinds)
                # Written so that NaN disagrees.
                if not abs(a - b) <= tolerance * abs(b):
                    found.append(f"{ours} and {theirs} at step {step + 1}: loss {a} and {b}, allowed {tolerance:.1%}")
                    break
    return found


def in_turns(options, batch, sequence, runs, adapter):
    """Results by configuration: `--rounds` runs of each, so that a slow minute hits all of them."""
    rows = random_rows(options, batch, sequence)
    results = {name: [] for name in runs}
    for number in range(options.rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            results[name].append(run(rows, adapter))
            took = time.perf_counter() - start
            failed = " FAILED" if "error" in results[name][-1] else ""
            print(f"{batch}x{sequence} round {number + 1}: {name}: {took:.0f} s{failed}", file=sys.stderr, flush=True)
    return results


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


def add_arguments(parser):
    """Options that every bench has."""
    parser.add_argument("--base", type=Path, help="folder with config.json and safetensors")
    parser.add_argument("--shapes", type=shapes, default="4x512", help='rows x tokens, such as "4x512,1x256"')
    parser.add_argument("--supervised", type=share, default=1.0, help="share of each row's end that carries loss")
    parser.add_argument("--steps", type=count, default=6, help="timed steps of a round")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them")
    parser.add_argument("--rounds", type=count, default=3)
    parser.add_argument("--threads", type=count, default=os.cpu_count(), help="of the CPU")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lazytune", type=Path, help="the lazytune binary")
    parser.add_argument("--lazytune-variant", action="append", help='"NAME: KEY=VALUE ..."; may be repeated')
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
