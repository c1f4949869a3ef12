#!/usr/bin/env python3
"""Load a base model and an adapter with Python's peft, and print the mean loss over a data file as JSON.

  pip install -r scripts/requirements-goldens.txt
  python3 scripts/check_peft.py --base BASE --adapter RUN/adapter --data rows.jsonl [--prompt "Define love"]
  python3 scripts/check_peft.py --suite --lazytune target/release/lazytune [--model SMOLLM2]

--suite trains a few steps with lazytune, for every family and every kind of adapter in tests/goldens (and on a real model
with --model), and fails unless peft finds the loss that lazytune reports at the end, and transformers finds it in the
merged model.

Rows are {"input_ids", "labels"}, {"text"} or {"messages": [...]}. Of a conversation every assistant turn is supervised, its
end-of-turn token and what the template writes behind it included; the header of the turn belongs to the prompt. The
loss is the mean over all supervised tokens of the file, in nats. --prompt generates greedily from the base and from
the adapted model; without --adapter only the base is measured. Where the adapter's folder holds a tokenizer with more
tokens than the model has, the model is resized first.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import peft
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

DTYPES = {"f32": torch.float32, "f64": torch.float64, "bf16": torch.bfloat16}


def render(tokenizer, messages, generation_prompt):
    if not messages:
        return ""
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation_prompt)


def conversation_row(tokenizer, messages):
    """(input_ids, labels): a token is supervised when it starts inside the text of an assistant turn."""
    text = render(tokenizer, messages, False)
    turns = []
    for index, message in enumerate(messages):
        if message["role"] == "assistant":
            before, through = render(tokenizer, messages[:index], True), render(tokenizer, messages[: index + 1], False)
            if not text.startswith(before) or not text.startswith(through):
                sys.exit(f"messages[{index}]: the template does not extend a conversation turn by turn")
            turns.append((len(before), len(through)))
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    labels = [
        token if any(start <= at < end for start, end in turns) else -100
        for token, (at, _) in zip(encoded["input_ids"], encoded["offset_mapping"])
    ]
    return encoded["input_ids"], labels


def read_rows(path, tokenizer, limit, max_length):
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        row = json.loads(line)
        if "input_ids" in row:
            ids, labels = row["input_ids"], row.get("labels", row["input_ids"])
        elif "text" in row:
            ids = tokenizer()(row["text"])["input_ids"]
            end = tokenizer().eos_token_id
            ids = ids if end is None or ids[-1:] == [end] else ids + [end]
            labels = ids
        elif "messages" in row:
            ids, labels = conversation_row(tokenizer(), row["messages"])
        else:
            sys.exit(f"{path}:{number}: neither input_ids nor messages nor text")
        rows.append((ids[:max_length], labels[:max_length]))
        if len(rows) == limit:
            break
    return rows


@torch.no_grad()
def summed_loss(model, rows, batch_size):
    """(sum of token losses, supervised tokens)."""
    total, count = 0.0, 0
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        width = max(len(ids) for ids, _ in batch)
        ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in batch])
        labels = torch.tensor([labels + [-100] * (width - len(labels)) for _, labels in batch])
        mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in batch])
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
        targets = labels[:, 1:].reshape(-1)
        logits = logits.reshape(-1, logits.shape[-1])
        logits = logits if logits.dtype == torch.float64 else logits.float()
        total += torch.nn.functional.cross_entropy(logits, targets, ignore_index=-100, reduction="sum").item()
        count += int((targets != -100).sum())
    return total, count


def measured(model, rows, batch_size):
    total, count = summed_loss(model, rows, batch_size)
    if count == 0:
        sys.exit("no supervised token in the data")
    return {"loss": total / count, "supervised_tokens": count, "rows": len(rows)}


@torch.no_grad()
def reply(model, tokenizer, prompt, tokens):
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    output = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
    return tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


# --- Adapters --------------------------------------------------------------------------------------


def adapted(model, folder):
    """The model with the adapter in `folder`, which may have been trained with more tokens."""
    config = peft.PeftConfig.from_pretrained(folder)
    indices = getattr(config, "trainable_token_indices", None) or {}
    named = [index for ids in (indices.values() if isinstance(indices, dict) else [indices]) for index in ids]
    tokens = len(AutoTokenizer.from_pretrained(folder)) if (Path(folder) / "tokenizer.json").exists() else 0
    rows = max([tokens, *(index + 1 for index in named)])
    if rows > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(rows)
    return peft.PeftModel.from_pretrained(model, folder)


# --- The suite -------------------------------------------------------------------------------------

ROOT = Path(__file__).resolve().parent.parent
TOLERANCE = 1e-4
ENDS = '["embed_tokens", "lm_head", "q_proj"]'
EVERYWHERE = {"lora": [], "dora": ["adapter.use_dora=true"]}
KINDS = {
    **EVERYWHERE,
    "rslora": ["adapter.use_rslora=true", "adapter.alpha=3.0"],
    "ends": [f"adapter.target_modules={ENDS}"],
    "ends dora": [f"adapter.target_modules={ENDS}", "adapter.use_dora=true"],
    "saved": ['adapter.modules_to_save=["lm_head", "norm"]'],
    "saved table": ['adapter.modules_to_save=["embed_tokens"]'],
}
TOKENS = 'model.add_tokens=["<tool>", "</tool>"]'
REAL = {
    "dora": ["adapter.use_dora=true"],
    "tokens": [TOKENS, 'model.add_special_tokens=["<note>"]'],
    "tokens in whole tables": [TOKENS, 'adapter.modules_to_save=["embed_tokens", "lm_head"]'],
}


def final_loss(binary, base, rows, keys, run, steps):
    """Trains, and returns the loss over the rows at the end."""
    held = run.with_suffix(".jsonl")
    held.write_bytes(rows.read_bytes())
    settings = [
        f"model.path={base}", f'data.train=["{rows}"]', f'data.validation=["{held}"]', "data.max_length=64",
        "data.shuffle=false", "optimizer.learning_rate=1e-2", f"train.max_steps={steps}", "train.save_steps=0",
        f"train.eval_steps={steps}", "train.batch_size=4", *keys,
    ]
    config = run.with_suffix(".toml")
    config.write_text("")
    command = [binary, "train", str(config), "--run-dir", str(run), "--plain", "--quiet"]
    subprocess.run(command + [part for key in settings for part in ("--set", key)], check=True, stdout=subprocess.DEVNULL)
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [event["eval_loss"] for event in events if event["event"] == "evaluation"][-1]


def agrees(name, binary, base, data, keys, folder, steps, dtype):
    run, merged = folder / "run", folder / "merged"
    found = final_loss(binary, base, data, keys, run, steps)

    def loss(model, tokenizer):
        rows = read_rows(data, lambda: AutoTokenizer.from_pretrained(tokenizer), None, 64)
        return measured(model.to(dtype).eval(), rows, 4)["loss"]

    load = lambda path: AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    expected = {"peft": loss(adapted(load(base), run / "adapter"), run / "adapter")}
    command = [binary, "merge", "--model", base, "--adapter", run / "adapter", "--out", merged]
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    expected["merged"] = loss(load(merged), merged)
    worst = max(abs(found / value - 1.0) for value in expected.values())
    # Merged weights are rounded to the type that the model is stored in.
    fine = math.isfinite(worst) and worst < TOLERANCE
    losses = ", ".join(f"{key} {value:.6f}" for key, value in expected.items())
    print(f"{'ok  ' if fine else 'FAIL'} {name}: lazytune {found:.6f}, {losses}", flush=True)
    return fine


def suite(binary, real, only):
    goldens = ROOT / "tests/goldens"
    cases = []
    for base in sorted(goldens.glob("*/base")):
        case = base.parent.name
        kinds = KINDS if case in ("gqa_tied", "untied_odd") else EVERYWHERE
        if case in ("tokens_tied", "tokens_untied"):
            kinds = {"continued": [f"adapter.init={base.parent / 'adapter'}"]}
        rows = base.parent / "rows.jsonl"
        cases += [(f"{case} {kind}", base, rows, keys, 4, torch.float64) for kind, keys in kinds.items()]
    fine = True
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder) / "texts.jsonl"
        texts.write_text("".join(json.dumps({"text": f"<tool>call {row}</tool> it is <note>"}) + "\n" for row in range(4)))
        if real:
            cases += [(f"{real.name} {kind}", real, texts, keys, 3, torch.float32) for kind, keys in REAL.items()]
        cases = [case for case in cases if only in case[0]]
        for number, (name, base, rows, keys, steps, dtype) in enumerate(cases):
            place = Path(folder) / str(number)
            place.mkdir()
            fine &= agrees(name, binary, base, rows, keys, place, steps, dtype)
    sys.exit(0 if fine else "peft or transformers does not find the losses of lazytune")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, help="folder with config.json and safetensors")
    parser.add_argument("--adapter", type=Path, help="folder with adapter_config.json")
    parser.add_argument("--data", type=Path, help="JSONL of tokenized or messages rows")
    parser.add_argument("--rows", type=int, help="only the first rows of the data")
    parser.add_argument("--max-length", type=int, help="tokens kept of a row")
    parser.add_argument("--batch", type=int, default=4, help="rows at a time")
    parser.add_argument("--dtype", choices=DTYPES, default="f32")
    parser.add_argument("--prompt", action="append", default=[], help="user message to answer; may be repeated")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--suite", action="store_true", help="check every family and kind of adapter")
    parser.add_argument("--lazytune", default="target/release/lazytune", help="the binary that the suite runs")
    parser.add_argument("--model", type=Path, help="folder of a real model for the suite")
    parser.add_argument("--only", default="", help="part of the names of the suite's cases to run")
    options = parser.parse_args()
    if not options.suite and not options.base:
        parser.error("--base or --suite is required")
    return options


def main():
    options = arguments()
    if options.suite:
        suite(str(Path(options.lazytune).resolve()), options.model, options.only)
    tokenizers = []
    grown = options.adapter and (options.adapter / "tokenizer.json").exists()

    def tokenizer():
        if not tokenizers:
            tokenizers.append(AutoTokenizer.from_pretrained(options.adapter if grown else options.base))
        return tokenizers[0]

    rows = read_rows(options.data, tokenizer, options.rows, options.max_length) if options.data else []
    model = AutoModelForCausalLM.from_pretrained(options.base, dtype=DTYPES[options.dtype]).eval()
    result = {"base": measured(model, rows, options.batch) if rows else {}}
    if options.prompt:
        result["base"]["replies"] = [reply(model, tokenizer(), text, options.max_new_tokens) for text in options.prompt]
    if options.adapter:
        model = adapted(model, options.adapter).to(DTYPES[options.dtype]).eval()
        result["adapted"] = measured(model, rows, options.batch) if rows else {}
        if options.prompt:
            replies = [reply(model, tokenizer(), text, options.max_new_tokens) for text in options.prompt]
            result["adapted"]["replies"] = replies
    print(json.dumps(result, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
