"""The directory of what the project can make again: data sets from packages, and compiled programs."""

from __future__ import annotations

import os
from pathlib import Path

SHORTEST_COMPILE = 0.2
"""Seconds; a program that compiles faster is not kept."""


def cache_directory() -> Path:
    """`FASTBERT_JAX_CACHE`, or a directory in the user's home."""
    return Path(os.environ.get("FASTBERT_JAX_CACHE") or Path.home() / ".cache" / "fastbert_jax")


def keep_compiled_programs() -> None:
    """Have jax, which must not be imported yet, keep its compiled programs for the next process.

    jax's own `JAX_COMPILATION_CACHE_DIR` wins. Nothing is kept where nothing can be written. Computers of different
    processors can share the directory: the keys of jax's cache hold the features of the processor.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    directory = cache_directory() / "compiled"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(directory, os.W_OK):
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(directory)
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", str(SHORTEST_COMPILE))
