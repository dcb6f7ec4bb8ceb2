"""The tables of docs/scaling.md of large prepared corpora: memory as measured, and five billion texts, computed."""

from __future__ import annotations

import json

from fastbert_jax.config import PrepareConfig
from fastbert_jax.text.corpora import TEXT_DTYPE
from fastbert_jax.text.training_batches import WINDOW_BATCHES, WINDOW_TEXTS
from markdown_tables import markdown
from scaling import (
    CHIPS_PER_HOST,
    MEAN_TOKENS,
    REAL_TOKENS,
    RESULTS,
    ROW_LENGTH,
    ROWS_PER_CHIP,
    SLICE,
    size,
    words,
)

CORPUS_MEMORY = RESULTS / "prepare_memory.json", RESULTS / "corpus_memory.json"

CORPUS_TEXTS = 5 * 10**9
PREPARING_MACHINES, PREPARING_CORES = 16, 32
"""Machines that prepare a corpus together, and the cores of each."""
TOKEN_BYTES = 2
"""On the disk: the vocabulary has fewer than 65,536 tokens."""
CORPUS_ROWS = SLICE * ROWS_PER_CHIP
"""Packed rows of a batch, for what each host reads."""


def corpus_memory() -> str:
    """What `benchmarks/input_memory.py` found: memory of a process, by the size of the corpus."""
    cells = []
    for path in CORPUS_MEMORY:
        result = json.loads(path.read_text(encoding="utf-8"))
        for way, found in result["ways"].items():
            for texts, look in zip(result["settings"]["texts"], found["looks"], strict=True):
                held = (f"{look[key] / 1e6:.0f} MB" for key in ("peak_bytes", "peak_anonymous_bytes"))
                first = look["seconds_to_first_batch"]
                cells.append([way, f"{texts:,}", *held, f"{first:.1f} s" if first else ""])
    return markdown(("process", "texts of the corpus", "peak", "peak without files", "first batch after"), cells)


def corpus() -> str:
    """A corpus of `CORPUS_TEXTS`: how long it takes to prepare, its bytes, and what the hosts of a slice read."""
    hosts = SLICE // CHIPS_PER_HOST
    tokens, places = CORPUS_TEXTS * MEAN_TOKENS * TOKEN_BYTES, CORPUS_TEXTS * TEXT_DTYPE.itemsize
    look = json.loads(CORPUS_MEMORY[0].read_text(encoding="utf-8"))["ways"]["prepare"]["looks"][-1]
    cores = PREPARING_MACHINES * PREPARING_CORES
    preparing = CORPUS_TEXTS * MEAN_TOKENS / (look["tokens"] / look["cpu_seconds"]) / cores
    # A host has the rows of a part of each window, and reads all of the shards that these lie in.
    shards = window_texts() / PrepareConfig.shard_texts
    own = tokens * min(1 / hosts + 1 / shards, 1)
    return markdown(
        ("of five billion texts", "computed"),
        [
            [f"time to prepare, {PREPARING_MACHINES} machines of {PREPARING_CORES} cores", words(preparing)],
            ["disk", size(tokens + places)],
            [f"read by each of {hosts} hosts in a pass", size(own + places)],
            ["read by all hosts", size(hosts * (own + places))],
            ["read by all hosts if each read all", size(hosts * (tokens + places))],
        ],
    )


def window_texts() -> float:
    """Texts that are shuffled with each other in batches of `CORPUS_ROWS` packed rows."""
    return max(WINDOW_TEXTS, WINDOW_BATCHES * CORPUS_ROWS * ROW_LENGTH * REAL_TOKENS / MEAN_TOKENS)


TABLES = {"corpus-memory": corpus_memory, "scaling-corpus": corpus}
"""By their names on the page."""
