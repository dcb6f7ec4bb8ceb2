"""Whether the memory of a process that makes or reads a corpus stays flat when the corpus grows, by each way to do it.

    python benchmarks/input_memory.py --output benchmarks/results/input_memory.json
    python benchmarks/input_memory.py --ways prepare --texts 250000 1000000 --words 1 4 \\
      --output benchmarks/results/prepare_memory.json
    python benchmarks/input_memory.py --ways prepared 'prepared, packed' --texts 1000000 50000000 5000000000 \\
      --words 1 4 --batch-size 256 --most 3000000 --output benchmarks/results/corpus_memory.json

Each way runs in a process of its own for each corpus. The highest resident memory of that process is recorded, and the
highest of its anonymous part: the rest are pages of files, which the system may drop. `nothing` is such a process that
reads no text, `prepare` tokenises the corpus with one worker of one thread, the others read batches. A
corpus of more than a million texts is the same million again and again, under other names.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import multiprocessing
import os
import random
import sys
import tempfile
import threading
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
from fastbert_jax.text.corpora import Manifest, PreparedCorpus, TextStream, read_manifest
from fastbert_jax.text.prepare import prepare
from fastbert_jax.text.sources import read_examples
from fastbert_jax.text.tokenizer import load_tokenizer
from fastbert_jax.text.training_batches import StreamedBatches, TrainingBatches

PREPARE = "prepare"
WAYS = ("nothing", "in memory", "prepared", "prepared, packed", "stream", "stream, packed")
BUCKETS = (16, 32, 64)
WORDS = 3000
"""Different words that the texts are made of."""
FILE_TEXTS = 1_000_000
"""Texts of a file; a larger corpus has many such files, or their shards."""
SECONDS_BETWEEN_LOOKS = 0.02


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Watch the memory of making and reading corpora."""

    texts: tuple[int, ...] = (10_000, 100_000)
    """Texts of each corpus, rising; up to a million, or a multiple of a million."""
    words: tuple[int, int] = (5, 60)
    """The fewest and the most words of a text."""
    most: int = 0
    """Texts that are read, in as many epochs as that takes; 0: one epoch."""
    batch_size: int = 32
    """Rows of a batch."""
    window: int = 512
    """stream: texts that are held at a time."""
    tokenizer: str = ""
    """Directory of a tokenizer; empty: MiniLM's."""
    ways: tuple[str, ...] = WAYS
    """What to watch: `prepare`, or ways to read."""
    output: str = ""
    """JSON file of the result; empty: print it only."""


def main() -> None:
    """Read, print, write."""
    settings = tyro.cli(Settings, config=TYRO_STYLE)
    tokenizer = settings.tokenizer or str(pretrained_directory("builtin:minilm"))
    found: dict[str, list[dict[str, float]]] = {way: [] for way in settings.ways}
    with tempfile.TemporaryDirectory() as directory:
        for count in settings.texts:
            files = write_files(Path(directory), count, settings.words)
            corpus = Path(directory) / f"corpus of {count}"
            if settings.ways != (PREPARE,):
                first = files[0].with_suffix("")
                prepare_texts(files[:1], first, tokenizer)  # once: the same again does nothing
                repeat(first, corpus, len(files))
            for way in settings.ways:
                # A process of its own, so that its highest memory is that of this way alone.
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                    found[way].append(pool.submit(watch, way, files, corpus, tokenizer, settings).result())
                print(f"{count} texts, {way}: {found[way][-1]}", file=sys.stderr, flush=True)
    further = settings.texts[-1] - settings.texts[0]
    ways = {
        way: {
            "looks": looks,
            "bytes_per_further_text": (looks[-1]["peak_bytes"] - looks[0]["peak_bytes"]) / max(further, 1),
        }
        for way, looks in found.items()
    }
    # It brings jax, which the reading does without; the processes above import this file too.
    from measured import publish

    publish({"ways": ways}, settings)


def write_files(directory: Path, count: int, most_words: tuple[int, int]) -> list[Path]:
    """Files of texts of random words; all are links to the first one."""
    generator = random.Random(0)
    words = ["".join(generator.choices("etaoinshrdlu", k=generator.randint(2, 8))) for _ in range(WORDS)]
    first = directory / f"texts {min(count, FILE_TEXTS)}.jsonl"
    if not first.exists():
        with open(first, "w", encoding="utf-8") as stream:
            for _ in range(min(count, FILE_TEXTS)):
                text = " ".join(generator.choices(words, k=generator.randint(*most_words)))
                stream.write(json.dumps({"text": text}) + "\n")
    links = [directory / f"{count} {number:05d}.jsonl" for number in range(1, -(-count // FILE_TEXTS))]
    for link in links:
        os.link(first, link)
    return [first, *links]


def prepare_texts(files: list[Path], corpus: Path, tokenizer: str) -> Manifest:
    """Prepare a corpus of the files."""
    with contextlib.redirect_stdout(sys.stderr):
        config = PrepareConfig(
            input=tuple(map(str, files)), output=str(corpus), tokenizer=tokenizer, max_length=BUCKETS[-1]
        )
        return prepare(config)


def repeat(corpus: Path, larger: Path, times: int) -> None:
    """Make a corpus of so many inputs that are the one of `corpus`: further names of the same files."""
    manifest = read_manifest(corpus)
    assert manifest is not None
    larger.mkdir()
    shards = []
    for number in range(times):
        for shard in manifest.shards:
            name = f"{number:05d}-{shard.name.partition('-')[2]}"
            files = {name + Path(file).suffix: facts for file, facts in shard.files.items()}
            for file, link in zip(shard.files, files, strict=True):
                os.link(corpus / file, larger / link)
            shards.append(dataclasses.replace(shard, name=name, files=files))
    dataclasses.replace(manifest, shards=tuple(shards)).write(larger)


def watch(way: str, files: list[Path], corpus: Path, tokenizer: str, settings: Settings) -> dict[str, float]:
    """Prepare a corpus or read one epoch: texts and tokens, the seconds it took, and the highest memory."""
    anonymous, ends = [0], threading.Event()

    def look() -> None:
        while not ends.wait(SECONDS_BETWEEN_LOOKS):
            anonymous[0] = max(anonymous[0], memory("RssAnon"))

    looking = threading.Thread(target=look)
    looking.start()
    start = time.perf_counter()
    texts = tokens = padding = 0
    first = 0.0
    if way == PREPARE:
        os.environ["RAYON_NUM_THREADS"] = "1"  # read by the tokenizer
        manifest = prepare_texts(files, corpus.with_name(f"{corpus.name}, watched"), tokenizer)
        texts, tokens = manifest.total("texts"), manifest.total("tokens")
    else:
        for batch in batches(way, files[0], corpus, tokenizer, settings):
            first = first or time.perf_counter() - start
            texts += int(batch.valid_BxK.sum())
            tokens += int((batch.text_BxS > 0).sum())
            padding += int((batch.text_BxS == 0).sum())
            if texts >= settings.most > 0:
                break
    seconds = time.perf_counter() - start
    ends.set()
    looking.join()
    return {
        "texts": texts,
        "tokens": tokens,
        "real_tokens": tokens / max(tokens + padding, 1),
        "seconds": seconds,
        "cpu_seconds": time.process_time(),
        "seconds_to_first_batch": first,
        "peak_bytes": memory("VmHWM"),
        "peak_anonymous_bytes": anonymous[0],
    }


def batches(way: str, file: Path, corpus: Path, tokenizer: str, settings: Settings) -> Iterator[Batch]:
    """The batches of one epoch."""
    encode = functools.partial(load_tokenizer(tokenizer).encode, max_length=BUCKETS[-1])
    shared: dict[str, Any] = {"batch_size": settings.batch_size, "seed": 0}
    match way:
        case "nothing":
            return
        case "in memory":
            examples = read_examples(str(file), DataConfig(), need_label=False).examples
            encoded = encode([example.text for example in examples])
            yield from TrainingBatches(encoded, None, buckets=BUCKETS, epochs=1, **shared).stream(0)
        case "prepared" | "prepared, packed":
            shared["pack"] = way.endswith("packed")
            prepared = PreparedCorpus(corpus)
            epochs = max(-(-settings.most // len(prepared)), 1)
            yield from TrainingBatches(prepared, None, buckets=BUCKETS, epochs=epochs, **shared).stream(0)
        case "stream" | "stream, packed":
            texts = functools.partial(iter, TextStream(str(file), DataConfig()))
            left = len(PreparedCorpus(corpus))
            packs = way.endswith("packed")
            streamed = StreamedBatches(
                texts, encode, window=settings.window, buckets=BUCKETS, steps=left, pack=packs, **shared
            )
            for batch in streamed.stream(0):
                yield batch
                left -= int(batch.valid_BxK.sum())
                if left <= 0:
                    return
        case _:
            raise ValueError(f"expected one of {WAYS}, found {way!r}")


def memory(field: str) -> int:
    """Resident bytes of this process: `VmHWM`, the most so far, or `RssAnon`, the anonymous ones now."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


if __name__ == "__main__":
    end_with(main)
