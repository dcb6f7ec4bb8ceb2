"""Whether the memory of a process that feeds training stays flat when its corpus grows tenfold, by each way to read it.

    python benchmarks/input_memory.py --output benchmarks/results/input_memory.json

Each way reads one epoch of batches of the corpus once and of a corpus so many times as large, in processes of their
own, whose peak resident memory is recorded. `nothing` is such a process that reads no text.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import tyro

from fastbert_jax.command_line import TYRO_STYLE, end_with
from fastbert_jax.config import DataConfig, PrepareConfig
from fastbert_jax.text.batches import Batch
from fastbert_jax.text.builtin import pretrained_directory
from fastbert_jax.text.corpora import PreparedCorpus, TextStream
from fastbert_jax.text.prepare import prepare
from fastbert_jax.text.sources import read_examples
from fastbert_jax.text.tokenizer import load_tokenizer
from fastbert_jax.text.training_batches import StreamedBatches, TrainingBatches

WAYS = ("nothing", "in memory", "prepared", "prepared, packed", "stream", "stream, packed")
BUCKETS = (16, 32, 64)
BATCH_SIZE = 32
WORDS = 3000
"""Different words that the texts are made of."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Watch the memory of reading a corpus."""

    texts: int = 10_000
    """Texts of the smaller corpus."""
    times: int = 10
    """How many times as many the larger one has."""
    window: int = 512
    """stream: texts that are held at a time."""
    tokenizer: str = ""
    """Directory of a tokenizer; empty: MiniLM's."""
    ways: tuple[str, ...] = WAYS
    """Ways to read it."""
    output: str = ""
    """JSON file of the result; empty: print it only."""


def main() -> None:
    """Read, print, write."""
    settings = tyro.cli(Settings, config=TYRO_STYLE)
    tokenizer = settings.tokenizer or str(pretrained_directory("builtin:minilm"))
    counts = (settings.texts, settings.times * settings.texts)
    found: dict[str, list[dict[str, float]]] = {way: [] for way in settings.ways}
    with tempfile.TemporaryDirectory() as directory:
        for count in counts:
            file = Path(directory) / f"{count}.jsonl"
            write_texts(file, count)
            corpus = Path(directory) / f"corpus of {count}"
            with contextlib.redirect_stdout(sys.stderr):
                prepare(
                    PrepareConfig(input=(str(file),), output=str(corpus), tokenizer=tokenizer, max_length=BUCKETS[-1])
                )
            for way in settings.ways:
                # A process of its own, so that its highest memory is that of this way alone.
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                    found[way].append(pool.submit(read, way, file, corpus, tokenizer, settings.window).result())
    ways = {
        way: {
            "looks": looks,
            "bytes_per_further_text": (looks[1]["peak_bytes"] - looks[0]["peak_bytes"]) / (counts[1] - counts[0]),
        }
        for way, looks in found.items()
    }
    # It brings jax, which the reading does without; the processes above import this file too.
    from measured import publish

    publish({"ways": ways}, settings)


def write_texts(path: Path, count: int) -> None:
    """A file of texts of 5 to 60 random words."""
    generator = random.Random(0)
    words = ["".join(generator.choices("etaoinshrdlu", k=generator.randint(2, 8))) for _ in range(WORDS)]
    with open(path, "w", encoding="utf-8") as stream:
        for _ in range(count):
            text = " ".join(generator.choices(words, k=generator.randint(5, 60)))
            stream.write(json.dumps({"text": text}) + "\n")


def read(way: str, file: Path, corpus: Path, tokenizer: str, window: int) -> dict[str, float]:
    """One epoch of batches: their texts and tokens, the seconds they took, and the highest memory of the process."""
    start = time.perf_counter()
    texts = tokens = padding = 0
    for batch in batches(way, file, corpus, tokenizer, window):
        texts += int(batch.valid_BxK.sum())
        tokens += int((batch.text_BxS > 0).sum())
        padding += int((batch.text_BxS == 0).sum())
    seconds = time.perf_counter() - start
    share = tokens / max(tokens + padding, 1)
    return {"texts": texts, "real_tokens": share, "seconds": seconds, "peak_bytes": peak_bytes()}


def batches(way: str, file: Path, corpus: Path, tokenizer: str, window: int) -> Iterator[Batch]:
    """The batches of one epoch."""
    encode = functools.partial(load_tokenizer(tokenizer).encode, max_length=BUCKETS[-1])
    shared: dict[str, Any] = {"batch_size": BATCH_SIZE, "seed": 0}
    match way:
        case "nothing":
            return
        case "in memory":
            examples = read_examples(str(file), DataConfig(), need_label=False).examples
            encoded = encode([example.text for example in examples])
            yield from TrainingBatches(encoded, None, buckets=BUCKETS, epochs=1, **shared).stream(0)
        case "prepared" | "prepared, packed":
            shared["pack"] = way.endswith("packed")
            yield from TrainingBatches(PreparedCorpus(corpus), None, buckets=BUCKETS, epochs=1, **shared).stream(0)
        case "stream" | "stream, packed":
            texts = functools.partial(iter, TextStream(str(file), DataConfig()))
            left = len(PreparedCorpus(corpus))
            packs = way.endswith("packed")
            streamed = StreamedBatches(texts, encode, window=window, buckets=BUCKETS, steps=left, pack=packs, **shared)
            for batch in streamed.stream(0):
                yield batch
                left -= int(batch.valid_BxK.sum())
                if left <= 0:
                    return
        case _:
            raise ValueError(f"expected one of {WAYS}, found {way!r}")


def peak_bytes() -> int:
    """The highest resident memory of this process so far."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    end_with(main)
