"""A tiny trained-looking model in a directory, and texts for it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from fastbert_jax.config import ReadingConfig
from fastbert_jax.model.config_json import reading_values
from fastbert_jax.model.weights import save_model
from fastbert_jax.text.tokenizer import train_tokenizer
from tests.inference.models import LAYERS, tiny_config, tiny_params

LABELS = ("zebra", "ant", "mole")
"""Not in the order of the alphabet: the model's own order counts."""
WORDS = "the a film plot actor scene was is good bad dull bright very not never quite".split()


def some_texts(count: int, *, seed: int = 0) -> list[str]:
    """Texts of 1 to 10 words."""
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, generator.integers(1, 11))) for _ in range(count)]


def save_tiny_model(
    directory: Path,
    *,
    vocab_size: int = 64,
    labels: tuple[str, ...] = LABELS,
    num_layers: int = LAYERS,
    exit_layers: tuple[int, ...] = (),
    reading: ReadingConfig | None = None,
    excluded_labels: tuple[str, ...] = (),
) -> Path:
    """Write weights, tokenizer and settings as training does.

    Args:
      vocab_size: the model's, not the tokenizer's.
      exit_layers: layers with an exit; empty: all.
      reading: how its texts were read; none: not saved, as by earlier versions.
    """
    config = tiny_config(len(labels), num_layers=num_layers)
    config = dataclasses.replace(config, vocab_size=vocab_size, exit_layers=exit_layers or config.exit_layers)
    extra = {"labels": list(labels), "max_length": 16, "length_buckets": [8, 16], "precision": "float32"}
    if excluded_labels:
        extra["excluded_labels"] = list(excluded_labels)
    if reading:
        extra["reading"] = reading_values(reading)
    save_model(directory, tiny_params(config), config, extra=extra)
    train_tokenizer(some_texts(200), vocab_size=60).save(directory)
    return directory
