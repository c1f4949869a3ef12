#!/usr/bin/env python3
"""Load a base model and an adapter with Python's peft, and print the mean loss over a data file as JSON.

  pip install -r scripts/requirements-goldens.txt
  python3 scripts/check_peft.py --base BASE --adapter RUN/adapter --data rows.jsonl [--prompt "Define love"]

Rows are {"input_ids", "labels"} or {"messages": [...]}. Of a conversation every assistant turn is supervised, its
end-of-turn token and what the template writes behind it included; the header of the turn belongs to the prompt. The
loss is the mean over all supervised tokens of the file, in nats. --prompt generates greedily from the base and from
the adapted model; without --adapter only the base is measured.
"""

import argparse
import json
import sys
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
        elif "messages" in row:
            ids, labels = conversation_row(tokenizer(), row["messages"])
        else:
            sys.exit(f"{path}:{number}: neither input_ids nor messages")
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


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="folder with config.json and safetensors")
    parser.add_argument("--adapter", type=Path, help="folder with adapter_config.json")
    parser.add_argument("--data", type=Path, help="JSONL of tokenized or messages rows")
    parser.add_argument("--rows", type=int, help="only the first rows of the data")
    parser.add_argument("--max-length", type=int, help="tokens kept of a row")
    parser.add_argument("--batch", type=int, default=4, help="rows at a time")
    parser.add_argument("--dtype", choices=DTYPES, default="f32")
    parser.add_argument("--prompt", action="append", default=[], help="user message to answer; may be repeated")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    return parser.parse_args()


def main():
    options = arguments()
    tokenizers = []

    def tokenizer():
        if not tokenizers:
            tokenizers.append(AutoTokenizer.from_pretrained(options.base))
        return tokenizers[0]

    rows = read_rows(options.data, tokenizer, options.rows, options.max_length) if options.data else []
    model = AutoModelForCausalLM.from_pretrained(options.base, dtype=DTYPES[options.dtype]).eval()
    result = {"base": measured(model, rows, options.batch) if rows else {}}
    if options.prompt:
        result["base"]["replies"] = [reply(model, tokenizer(), text, options.max_new_tokens) for text in options.prompt]
    if options.adapter:
        model = peft.PeftModel.from_pretrained(model, options.adapter).to(DTYPES[options.dtype]).eval()
        result["adapted"] = measured(model, rows, options.batch) if rows else {}
        if options.prompt:
            replies = [reply(model, tokenizer(), text, options.max_new_tokens) for text in options.prompt]
            result["adapted"]["replies"] = replies
    print(json.dumps(result, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
