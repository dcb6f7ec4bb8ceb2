"""The files that the pages' commands name, made tiny: tables, texts, a pretrained BERT, an official checkpoint."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
from pathlib import Path

from fastbert_jax.model.state_dicts import read_state_dict
from tests.model.torch_files import write_state_dict
from tests.pages import ROOT
from tests.tiny_bert import write_tiny_bert

BUILTIN = Path("builtin")
"""Where the splits of the built-in sets are."""
MINILM = "tiny_minilm"
"""The package that stands in for MiniLM's; it lies in the folder itself."""
LABELS = ("bad", "good")
WORDS = ("the", *"abcdefgh")
"""Of the tiny BERT's vocabulary."""


def write_files(official: Path) -> None:
    """Write them all into the working directory.

    Args:
      official: the directory of the official checkpoints.
    """
    for name in ("configs", "examples"):
        Path(name).symlink_to(ROOT / name)
    rows = [f"Re: {text.split()[0]},{text},{label}" for text, label in opinions("mails.csv")]
    Path("mails.csv").write_text("\n".join(["subject,message,verdict", *rows]))
    for path in ("mine.csv", "dev.csv", "test.csv", "new.csv", "shared/data/reviews.tsv", "shared/data/test.tsv"):
        write_table(path)
    subprocess.run(
        [sys.executable, ROOT / "examples" / "make_tickets.py", "tickets.csv", "--tickets", "60"], check=True
    )
    for split in ("train", "dev", "test", "unlabelled"):
        write_table(f"{BUILTIN}/{split}.tsv")
    for path in ("new.txt", "texts.txt", "more.jsonl", "texts/a.jsonl", "texts/b.jsonl.gz", "shared/text/c.jsonl.gz"):
        write_texts(path)
    bert = {"num_hidden_layers": 2, "max_position_embeddings": 128}
    for directory in (Path("models/bert-base-uncased"), Path(MINILM) / "model"):
        write_tiny_bert(directory, **bert)
    Path(MINILM, "__init__.py").touch()
    # The official checkpoint has three classes; the page's has two.
    tensors = {
        name: array[:2] if ".output_layer_2." in name else array
        for name, array in read_state_dict(official / "package.bin").items()
    }
    write_state_dict(Path("fastbert.bin"), tensors)
    Path("google_uncased_en_vocab.txt").write_bytes((official / "vocab.txt").read_bytes())


def opinions(seed: str) -> list[tuple[str, str]]:
    """Texts and their labels, which stand in the texts."""
    generator = random.Random(seed)
    made = []
    for number in range(48):
        label = LABELS[number % 2]
        words = [*generator.choices(WORDS, k=generator.randrange(3, 12)), label]
        made.append((" ".join(generator.sample(words, len(words))), label))
    return made


def write_table(path: str) -> None:
    """A .tsv or .csv file of opinions and verdicts; `test.csv` also has a column of languages."""
    between = "\t" if path.endswith(".tsv") else ","
    rows = [("opinion", "verdict"), *opinions(path)]
    if path == "test.csv":
        rows = [(*row, language) for row, language in zip(rows, ("language", *("en", "de") * 24), strict=True)]
    make_parent(path).write_text("".join(f"{between.join(row)}\n" for row in rows))


def write_texts(path: str) -> None:
    """A .txt or .jsonl file of texts, also as .gz."""
    texts = [text for text, _ in opinions(path)]
    lines = texts if path.endswith(".txt") else [json.dumps({"text": text}) for text in texts]
    content = "".join(f"{line}\n" for line in lines).encode()
    make_parent(path).write_bytes(gzip.compress(content) if path.endswith(".gz") else content)


def make_parent(path: str) -> Path:
    """The path, whose directory is there."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return Path(path)
