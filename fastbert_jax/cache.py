"""Where the project keeps what it can make again: data sets taken out of packages, and compiled programs."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

CPU_FACTS = Path("/proc/cpuinfo")
SHORTEST_COMPILE = 0.2
"""Seconds; a program that compiles faster is not worth a file."""


def cache_directory() -> Path:
    """`FASTBERT_JAX_CACHE`, or a folder in the user's home."""
    return Path(os.environ.get("FASTBERT_JAX_CACHE") or Path.home() / ".cache" / "fastbert_jax")


def keep_compiled_programs() -> None:
    """Let jax, which must not be imported yet, keep its compiled programs for the next process.

    They are kept apart for each kind of processor, as a program compiled for one may not run on another that shares
    the folder. Whoever has set jax's own `JAX_COMPILATION_CACHE_DIR` keeps that; where nothing can be written, nothing
    is kept.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    directory = cache_directory() / "compiled" / _processor()
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(directory, os.W_OK):
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(directory)
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", str(SHORTEST_COMPILE))


def _processor() -> str:
    """A name for this kind of processor: machine type, and a digest of what it can do."""
    try:
        lines = CPU_FACTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = [platform.processor()]
    facts = sorted({line for line in lines if line.split(":")[0].strip() in ("flags", "Features", "model name")})
    return f"{platform.machine()}-{hashlib.sha256(chr(10).join(facts or lines[:1]).encode()).hexdigest()[:12]}"
