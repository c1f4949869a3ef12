#!/usr/bin/env python3
"""Make tests/fixtures/gguf_tokenizers: SentencePiece tokenizers in GGUF, and the ids that transformers gives.

  pip install -r scripts/requirements-goldens.txt
  python3 scripts/make_tokenizer_goldens.py [--model REAL.model ...]

Each case trains a tiny SentencePiece model, stores it as llama.cpp's convert_hf_to_gguf.py would (CASE.gguf, without
weights), converts it with transformers' converter for the family, and writes texts with their ids, bos included, and
with what the ids decode to (CASE.json). --model does the same for a real SentencePiece model and prints the folder,
which `LAZYTUNE_TOKENIZER_GOLDENS=FOLDER cargo test --test tokenizers` then checks.
"""

import argparse
import json
import random
import tempfile
from pathlib import Path
from types import SimpleNamespace

import gguf
import sentencepiece
from tokenizers import AddedToken, processors
from transformers.convert_slow_tokenizer import GemmaConverter, LlamaConverter
from sentencepiece import sentencepiece_model_pb2

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "tests/fixtures/gguf_tokenizers"
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"

CASES = {
    "llama": {"family": "llama"},
    "phi3": {"family": "llama", "name": "Phi-3 tiny", "added": ["<|endoftext|>", "<|user|>", "<|end|>"]},
    "mistral3": {"family": "llama", "legacy": False, "control": ["[INST]", "[/INST]"]},
    "gemma": {
        "family": "gemma", "control": ["<start_of_turn>", "<end_of_turn>"],
        "user": ["\n\n", "\n\n\n", "<b>"] + [SPACE * length for length in range(2, 32)],
    },
    "unigram": {"family": "llama", "type": "unigram"},
}

TEXTS = [
    "", " ", "  ", "a", " a", "  a", "a ", "a  ", "Hello world", "Hello  world", "Hello\nworld", "\n", "\n\n", "a\n\n\n\nb",
    "\ta\t\tb", "a\r\nb", "   three", " " * 17 + "x", " " * 40 + "x", "tab\t end ", "caf\u00e9", "cafe\u0301", "na\u00efve \u00dcber",
    "\u4f60\u597d\uff0c\u4e16\u754c", "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8", "\ud55c\uad6d\uc5b4", "\u0645\u0631\u062d\u0628\u0627", "\u0928\u092e\u0938\u094d\u0924\u0947",
    "\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467 family", "a\U0001f600b", "\u0000", "a\u0001b\u007f", "\u00a0nbsp\u2003em", "\ufeffbom", "\u2581", "a\u2581b",
    "1234567890", "3.14159 and 2,718", "foo_bar(baz); // 42", "<0x0A>", "<unk>", "a<unk>b", "<s>", "</s> x", "<s>a</s>", "< s >",
    "x = [1, 2]\n    y", "The the THE tHe", "aaaa aaaaaaaaaaaaaaaaaaa", "...!!!???", "http://a.b/c?d=e&f#g",
    "\u0301", "\U0010ffff", "\ue000", "\u202eright",
]
MARKED = {
    "phi3": ["<|user|>\nHi<|end|>\n", "<|user|>  Hi <|end|> x", "<|endoftext|> y", "</s>  z", "<|end|>", " <|user|>a"],
    "mistral3": ["[INST] Hi [/INST] there", "[INST]Hi[/INST]there", " [INST]", "a[INST] b", "[INST]  two"],
    "gemma": [
        "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n", "a<b>c</b>", "a   b      c", "\n\n\n\n\n", "x<end_of_turn> y",
    ],
}


def random_texts(seed, count):
    """Mixtures of ASCII, spaces, special tokens' parts and characters from everywhere in Unicode."""
    source = random.Random(seed)
    alphabets = [
        "abcdefghijklmnopqrstuvwxyz", "ABCDE etaoin shrdlu ", "  \t\n\r", "0123456789.,;:!?()[]{}<>/|_-+=*&^%$#@~`'\"\\",
        "\u00e9\u00e8\u00fc\u00f6\u00df\u00f1\u00e7\u00f8\u0142", "\u4e2d\u6587\u5b57\u7b26\u3002\uff0c", "\u3042\u3044\u30ab\u30ad", "\u0430\u0431\u0432\u0433\u0434\u0435", "\U0001f600\U0001f680\U0001f468\u200d\u2764\ufe0f", "\u0301\u0308\u200b\u00a0\u2009",
    ]
    texts = []
    for _ in range(count):
        parts = []
        for _ in range(source.randint(1, 8)):
            if source.random() < 0.15:
                parts.append(chr(source.choice([source.randrange(1, 0xD800), source.randrange(0xE000, 0x110000)])))
            else:
                parts.append("".join(source.choice(source.choice(alphabets)) for _ in range(source.randint(1, 6))))
        texts.append("".join(parts))
    return texts


def corpus():
    rows = (ROOT / "configs/quickstart/bierce.jsonl").read_text(encoding="utf-8").splitlines()[:300]
    lines = [message["content"] for row in rows for message in json.loads(row).get("messages", [])]
    lines += ["\u4f60\u597d \u4e16\u754c caf\u00e9 na\u00efve"] * 20 + ["def f(x):    return x"] * 20
    return [part for line in lines for part in line.split("\n") if part]


def trained(case, folder):
    """A SentencePiece model as Llama's and Gemma's were made: no normalization, digits apart, bytes for the rest."""
    gemma = case["family"] == "gemma"
    prefix = folder / "tiny"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()), model_prefix=str(prefix), model_type=case.get("type", "bpe"), vocab_size=520,
        character_coverage=0.99, byte_fallback=True, normalization_rule_name="identity", split_digits=True,
        add_dummy_prefix=not gemma, remove_extra_whitespaces=False, allow_whitespace_only_pieces=True,
        control_symbols=case.get("control", []), user_defined_symbols=case.get("user", []),
        unk_id=3 if gemma else 0, bos_id=2 if gemma else 1, eos_id=1 if gemma else 2, pad_id=0 if gemma else -1,
        unk_piece="<unk>", bos_piece="<bos>" if gemma else "<s>", eos_piece="<eos>" if gemma else "</s>",
        pad_piece="<pad>", hard_vocab_limit=False, minloglevel=2,
    )
    return prefix.with_suffix(".model")


class Extractor:
    """What transformers' extractor did when the published files were made: merges by score, in the order of the pieces.

    Since then `generate_merges` also sorts by length, which shows in runs of more spaces than the longest token has.
    """

    def __init__(self, path):
        self.processor = sentencepiece.SentencePieceProcessor(model_file=path)

    def extract(self, scores):
        pieces = self.processor
        vocabulary = {pieces.id_to_piece(index): index for index in range(pieces.get_piece_size())}
        merges = []
        for whole, score in scores:
            cuts = [(whole[:at], whole[at:]) for at in range(1, len(whole))]
            known = [cut for cut in cuts if cut[0] in vocabulary and cut[1] in vocabulary]
            merges += [(score, cut) for cut in sorted(known, key=lambda cut: (vocabulary[cut[0]], vocabulary[cut[1]]))]
        return vocabulary, [cut for _, cut in sorted(merges, key=lambda merge: merge[0], reverse=True)]


def converted(case, path):
    """transformers' fast tokenizer."""
    gemma = case["family"] == "gemma"
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    original = SimpleNamespace(
        vocab_file=str(path), legacy=case.get("legacy", True), add_prefix_space=not gemma, pad_token="<pad>", eos_token="<eos>",
        bos_token="<bos>", convert_ids_to_tokens=processor.id_to_piece,
    )
    converter = (GemmaConverter if gemma else LlamaConverter)(original)
    converter.SpmExtractor = Extractor
    tokenizer = converter.converted()
    names = ["<pad>", "<eos>", "<bos>", "<unk>"] if gemma else ["<unk>", "<s>", "</s>"]
    # Phi 3 keeps the white space behind these three alone.
    added = case.get("added", [])
    strips = lambda name: bool(added) and name == "</s>"
    tokenizer.add_special_tokens([AddedToken(name, rstrip=strips(name), normalized=False) for name in names])
    tokenizer.add_special_tokens(
        [AddedToken(name, rstrip=name != "<|endoftext|>", normalized=False) for name in added]
    )
    bos = "<bos>" if gemma else "<s>"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    return tokenizer


def write_gguf(path, case, model, tokenizer):
    """The vocabulary as llama.cpp's converter stores it: what was added later has score -1000."""
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(Path(model).read_bytes())
    tokens, scores, kinds = [], [], []
    for piece in proto.pieces:
        # 4 is user-defined: its marks are written as spaces.
        tokens.append(piece.piece.replace(SPACE, " ") if piece.type == 4 else piece.piece)
        scores.append(-1000.0 if piece.type in (3, 4) else piece.score)
        kinds.append(piece.type)
    for name in case.get("added", []):
        assert tokenizer.token_to_id(name) == len(tokens)
        tokens.append(name)
        scores.append(-1000.0)
        kinds.append(3)
    writer = gguf.GGUFWriter(path, "llama" if case["family"] == "llama" else "gemma2")
    writer.add_name(case.get("name", "tiny"))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(tokens.index("<bos>" if "<bos>" in tokens else "<s>"))
    writer.add_eos_token_id(tokens.index("<eos>" if "<eos>" in tokens else "</s>"))
    writer.add_unk_token_id(tokens.index("<unk>"))
    writer.add_add_space_prefix(case["family"] == "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_case(folder, name, case, model, count):
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = converted(case, model)
    write_gguf(folder / f"{name}.gguf", case, model, tokenizer)
    texts = TEXTS + MARKED.get(name, []) + random_texts(name, count)
    rows = []
    for text in texts:
        ids = tokenizer.encode(text).ids
        rows.append({"text": text, "ids": ids, "decoded": tokenizer.decode(ids)})
    (folder / f"{name}.json").write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    return len(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, action="append", default=[], help="a real SentencePiece model")
    parser.add_argument("--family", default="llama")
    parser.add_argument("--first", action="store_true", help="the model's tokenizer.json marks the start of a text only")
    options = parser.parse_args()
    if options.model:
        out = Path(tempfile.mkdtemp())
        for model in options.model:
            case = {"family": options.family, "legacy": not options.first}
            print(write_case(out, model.name, case, model, 2000), "texts for", model.name, "in", out)
        return
    for name, case in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            print(write_case(OUT, name, case, trained(case, Path(folder)), 80), "texts for", name)


if __name__ == "__main__":
    main()
