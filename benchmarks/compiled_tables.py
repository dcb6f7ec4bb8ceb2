"""The tables of docs/scaling.md of what `benchmarks/tpu_check.py` compiled."""

from __future__ import annotations

import json
from typing import Any

from markdown_tables import markdown
from scaling import COMPILED, size


def compiled_training() -> str:
    """The compiled steps of both phases: memory, the largest batch, what chips send each other, bytes moved."""
    cells = []
    for case in compiled_cases(training=True):
        row = [*map(case.get, ("slice", "model", "mesh", "program", "rows")), held(case), case.get("largest_rows", "")]
        cells.append([*row, sent(case), moved(case), f"{case['compile_seconds']:.0f} s"])
    header = ("slice", "model", "mesh", "program", "rows a chip", "memory a chip", "most rows", "sent a step")
    return markdown((*header, "moved a token", "compiled in"), cells)


def compiled_inference() -> str:
    """The compiled programs of the engines; no chip sends anything."""
    cells = []
    for case in compiled_cases(training=False):
        row = map(case.get, ("slice", "model", "program", "rows"))
        cells.append([*row, held(case), moved(case), f"{case['compile_seconds']:.0f} s"])
    header = ("slice", "model", "program", "rows a chip", "memory a chip", "moved a token", "compiled in")
    return markdown(header, cells)


def compiled_cases(*, training: bool) -> list[dict[str, Any]]:
    """What `benchmarks/tpu_check.py` found for each step of training, or for each program of the engines."""
    cases = json.loads(COMPILED.read_text(encoding="utf-8"))["cases"].values()
    return [case for case in cases if case["program"].startswith(("fine_tune", "distil")) is training]


def held(case: dict[str, Any]) -> str:
    """Memory that a compiled program takes on each chip."""
    return size(case["bytes_per_chip"]["all"]) if case["fits"] else "too much"


def sent(case: dict[str, Any]) -> str:
    """The results of a compiled program's collectives on each chip, by kind, the largest first."""
    kinds: dict[str, int] = {}
    for one in case.get("collectives", ()):
        kinds[one["kind"]] = kinds.get(one["kind"], 0) + one["bytes"] * one["times"]
    return ", ".join(f"{kind} {size(count)}" for kind, count in sorted(kinds.items(), key=lambda item: -item[1]))


def moved(case: dict[str, Any]) -> str:
    """Bytes through a chip's memory for each token, and how many times the least that is; empty where unknown."""
    least = case.get("least_bytes")
    return f"{case['moved_bytes'] / case['tokens'] / 1e3:.0f} kB, {case['moved_bytes'] / least:.1f} x" if least else ""


TABLES = {"compiled-training": compiled_training, "compiled-inference": compiled_inference}
"""By their names on the page."""
