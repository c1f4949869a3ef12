#!/usr/bin/env python3
"""Build the quickstart's data, tokenizer and base-model configuration.

Two dictionaries become two chat data sets of the same shape, so that one tiny model can learn the
first and be turned into the second by a LoRA adapter:

  WordNet 3.0 glosses     -> OUT/wordnet.jsonl        trains the base model (large, not committed)
  The Devil's Dictionary  -> CONFIGS/bierce.jsonl     trains the adapter
  both                    -> CONFIGS/base-init/       config.json, tokenizer and chat template

The inputs are the data files of Debian's `wordnet-base` (1:3.0) and `dict-devil` (1.0) packages:

  apt-get install wordnet-base dict-devil
  pip install -r scripts/requirements.txt
  python3 scripts/make_quickstart.py

The same inputs give the same bytes: nothing depends on the clock, a random source or hash order.
"""

import argparse
import gzip
import hashlib
import json
import re
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

PROMPTS = ["Define {}", "What is {}?", "Define the word {}."]
PARTS_OF_SPEECH = ["noun", "verb", "adj", "adv"]

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

VOCABULARY = 4096
# 5.2 M parameters: 10.4 MB as bf16, which keeps the folder below 12 MB.
BASE_CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 256,
    "num_hidden_layers": 6,
    "intermediate_size": 640,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 256,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "attention_bias": False,
    "mlp_bias": False,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "torch_dtype": "bfloat16",
}

# Both sources hold insults that a demonstration has no use for.
OFFENSIVE = re.compile(
    r"offensive|derogatory|disparag|obscen|vulgar|slur\b|ethnic|nigger|negro|darky|\bjews?\b|hebrew",
    re.IGNORECASE,
)
# Glosses that say little about one word.
UNHELPFUL = re.compile(
    r"^(any|a|an|one) (of )?(several|various|numerous)\b|^type genus|^used of", re.IGNORECASE
)


def first_number(word, count):
    """A number below `count` that depends on `word` alone."""
    return hashlib.sha256(word.encode()).digest()[0] % count


def chat_row(word, definition):
    prompt = PROMPTS[first_number(word, len(PROMPTS))].format(word)
    return {
        "messages": [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": definition},
        ]
    }


def as_sentence(text):
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else text + "."


# --- WordNet -------------------------------------------------------------------------------------


def wordnet_glosses(data_file):
    """Byte offset of a synset -> its raw gloss (`data.POS`, one synset a line after the licence)."""
    glosses = {}
    for line in data_file.read_text(encoding="utf-8").splitlines():
        if line[:1].isdigit():
            head, _, gloss = line.partition(" | ")
            glosses[head[:8]] = gloss.strip()
    return glosses


def wordnet_counts(count_file):
    """(word, part of speech) -> how often its first sense was tagged in WordNet's corpora."""
    counts = {}
    numbers = {"1": "noun", "2": "verb", "3": "adj", "4": "adv", "5": "adj"}
    for line in count_file.read_text(encoding="utf-8").splitlines():
        sense_key, sense, count = line.split()
        word, _, key = sense_key.partition("%")
        if sense == "1":
            counts[word, numbers[key[0]]] = int(count)
    return counts


def clean_gloss(gloss, limit):
    """The definition alone, without examples, usage notes and asides; None when nothing short is left."""
    gloss = re.split(r';?\s*"', gloss)[0]
    gloss = re.sub(r"\([^()]*\)", " ", gloss)
    gloss = gloss.replace("`", "'")
    gloss = re.sub(r"\s+", " ", gloss).strip(" ;:,")
    gloss = re.sub(r" ([,;:.])", r"\1", gloss)
    while len(gloss) > limit and ";" in gloss:
        gloss = gloss.rpartition(";")[0].strip()
    usable = 12 <= len(gloss) <= limit and gloss.isascii() and not re.search(r"[()\[\]<>|=]", gloss)
    return as_sentence(gloss) if usable else None


def wordnet_entries(folder, limit):
    """(word, definition, tagged) by word: single lower-case words, each with its most frequent first sense.

    `tagged` says that WordNet's corpora hold the word, which makes it one that people know.
    """
    counts = wordnet_counts(folder / "cntlist.rev")
    best = {}
    for part in PARTS_OF_SPEECH:
        glosses = wordnet_glosses(folder / f"data.{part}")
        for line in (folder / f"index.{part}").read_text(encoding="utf-8").splitlines():
            fields = line.split()
            word = fields[0] if line[:1].isalpha() else ""
            if not re.fullmatch(r"[a-z]{3,14}", word):
                continue
            # index.POS: lemma pos synsets p_cnt [pointers] senses tagged offset [offset...]
            first_sense = fields[4 + int(fields[3]) + 2]
            rank = (counts.get((word, part), 0), -PARTS_OF_SPEECH.index(part))
            if word not in best or rank > best[word][0]:
                best[word] = (rank, glosses[first_sense])
    entries = []
    for word in sorted(best):
        (count, _), gloss = best[word]
        definition = clean_gloss(gloss, limit)
        if definition and not OFFENSIVE.search(gloss) and not UNHELPFUL.search(definition):
            # A gloss that only repeats its own headword teaches nothing.
            if word not in definition.lower().split()[:3]:
                entries.append((word, definition, count > 0))
    return entries


def selected(entries, count):
    """Up to `count` entries, the tagged ones first, in the order of the words' digests."""
    shuffled = sorted(entries, key=lambda entry: hashlib.sha256(entry[0].encode()).digest())
    kept = sorted(shuffled, key=lambda entry: not entry[2])[:count]
    words = {entry[0] for entry in kept}
    return [entry[:2] for entry in shuffled if entry[0] in words]


# --- The Devil's Dictionary ----------------------------------------------------------------------

BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
# "WORD, n.", "WORD or WORD, adj. and n.", "(or WORD) WORD", "WORD." and the book's own misprints of them.
HEAD = re.compile(
    r"^\W*[A-Z][A-Zor'() -]*(?:\(?(?:,| or) [A-Z'() -]{2,})*"
    r"(?:,? ?(?:(?:and |& )?(?:v\.[ti]|v[ti]?|n\.pl|n|adj|adv|p\.p|pp|ppr|pron?|prep|conj|interj|x)\.,?\s*)+|[.?]\s+|[.?]?$|, )"
)


def dict_number(text):
    value = 0
    for digit in text:
        value = value * 64 + BASE64.index(digit)
    return value


def devil_articles(dictionary, index):
    """(headword, article) for every entry of a dictd index, in the order of the book."""
    text = gzip.decompress(dictionary.read_bytes())
    spans = {}
    for line in index.read_text(encoding="utf-8").splitlines():
        word, offset, length = line.split("\t")
        if not word.startswith("00"):
            spans.setdefault(dict_number(offset), (word, dict_number(length)))
    for start, (word, length) in sorted(spans.items()):
        yield word, text[start : start + length].decode("utf-8", "replace")


def joined(lines):
    """One line of text from wrapped ones; a word that was split at its hyphen is closed up."""
    text = " ".join(line.strip() for line in lines)
    text = re.sub(r"(?<=[a-z])- (?=[a-z])", "-", text)
    text = re.sub(r"\s*(\[[^\]]*\]|\(See {?\w+}?\.\))", "", text)
    text = re.sub(r"[_{}]", "", text)
    return re.sub(r"\s+", " ", text).strip()


def article_text(article, limit, verse_limit):
    """The prose of an article up to `limit` characters; its verse, if short, where it has no prose."""
    prose, verse = [], []
    for paragraph in re.split(r"\n\s*\n", article.strip("\n")):
        lines = paragraph.rstrip().split("\n")
        # Verse and quotations are indented; attributions stand further right than any of them.
        if not lines[0].startswith(" "):
            # A paragraph of the definition opens with its first line alone indented.
            prose += [joined(part.split("\n")) for part in re.split(r"\n(?=    )", "\n".join(lines))]
        elif lines[-1].startswith(" "):
            verse += [line for line in lines if len(line) - len(line.lstrip()) < 24]
    definition = HEAD.sub("", prose[0]) if prose else ""
    if not definition:
        text = joined(verse)
        return text if len(text) <= verse_limit else None
    for paragraph in prose[1:]:
        if len(definition) + 1 + len(paragraph) > limit:
            break
        definition += " " + paragraph
    return cut_at_sentence(definition, limit)


def cut_at_sentence(text, limit):
    """The longest prefix of whole sentences that fits; None when the first one is too long."""
    ends = [match.end() for match in re.finditer(r"[.!?]['\")]*(?= [A-Z\"(]|$)", text)]
    fitting = [end for end in ends if end <= limit and not re.search(r"\b([A-Z]|Dr|Mr|St)\.$", text[:end])]
    return text[: fitting[-1]] if fitting else None


def devil_entries(dictionary, index, limit, verse_limit):
    entries = {}
    for word, article in devil_articles(dictionary, index):
        definition = article_text(article, limit, verse_limit)
        if not definition or not definition.isascii() or OFFENSIVE.search(article):
            continue
        # Skipped: misprinted openings, references ("See X.") and announcements of verse that is not there.
        opens_well = re.match(r"[\"'(]?[A-Z0-9][^.]", definition)
        refers = definition.startswith("See ") or definition.endswith(":")
        if opens_well and not refers and len(definition) >= 8 and re.fullmatch(r"[a-z' -]{2,24}", word):
            entries.setdefault(word, definition)
    return list(entries.items())


# --- Tokenizer and model configuration -----------------------------------------------------------


def train_tokenizer(rows):
    """Byte-level BPE; the three special tokens take ids 0, 1 and 2."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END_OF_TEXT, TURN_START, TURN_END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = (message["content"] for row in rows for message in row["messages"])
    # The template's role lines are text too: give them whole tokens.
    roles = ["user\n", "assistant\n", "system\n"] * 5000
    tokenizer.train_from_iterator([*texts, *roles], trainer)
    return tokenizer


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_base(folder, tokenizer):
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    write_json(folder / "config.json", BASE_CONFIG)
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": BASE_CONFIG["max_position_embeddings"],
            "bos_token": TURN_START,
            "eos_token": TURN_END,
            "pad_token": END_OF_TEXT,
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
        },
    )
    write_json(
        folder / "generation_config.json",
        {"bos_token_id": 1, "eos_token_id": [2, 0], "pad_token_id": 0, "max_new_tokens": 96},
    )


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"), help="folder of data.* and index.*")
    parser.add_argument("--devil", type=Path, default=Path("/usr/share/dictd/devil.dict.dz"))
    parser.add_argument("--devil-index", type=Path, default=Path("/usr/share/dictd/devil.index"))
    parser.add_argument("--out", type=Path, default=Path("configs/quickstart-generated"), help="for the large base data")
    parser.add_argument("--configs", type=Path, default=Path("configs/quickstart"), help="for what is committed")
    parser.add_argument("--max-rows", type=int, default=50_000, help="WordNet rows kept")
    parser.add_argument("--gloss-limit", type=int, default=110, help="characters of a WordNet definition")
    parser.add_argument("--article-limit", type=int, default=350, help="characters of a Bierce definition")
    parser.add_argument("--verse-limit", type=int, default=400, help="characters of a definition in verse")
    return parser.parse_args()


def main():
    options = arguments()
    entries = wordnet_entries(options.wordnet, options.gloss_limit)
    wordnet = [chat_row(*entry) for entry in selected(entries, options.max_rows)]
    devil = [
        chat_row(*entry)
        for entry in devil_entries(options.devil, options.devil_index, options.article_limit, options.verse_limit)
    ]
    write_rows(options.out / "wordnet.jsonl", wordnet)
    write_rows(options.configs / "bierce.jsonl", devil)
    tokenizer = train_tokenizer(wordnet + devil)
    write_base(options.configs / "base-init", tokenizer)
    print(f"{len(wordnet)} of {len(entries)} WordNet rows, {len(devil)} Bierce rows, {tokenizer.get_vocab_size()} tokens")


if __name__ == "__main__":
    main()
