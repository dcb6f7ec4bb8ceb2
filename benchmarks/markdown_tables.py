"""Markdown tables of the benchmarks, and the paper's Table 3 from the runs of an ablations.json."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np


def markdown(header: Iterable[object], rows: Iterable[Iterable[object]], *, numbers_right: bool = True) -> str:
    """A Markdown table; `numbers_right`: all columns but the first to the right."""
    header = list(header)
    rule = ["---", *["---:" if numbers_right else "---"] * (len(header) - 1)]
    table: list[Iterable[object]] = [header, rule, *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in row)} |" for row in table)


def span(values: Iterable[float], form: str) -> str:
    """The range as text, such as `0.96 to 0.98`."""
    values = sorted(values)
    low, high = format(values[0], form), format(values[-1], form)
    return low if low == high else f"{low} to {high}"


def over_seeds(values: Iterable[float | None], digits: int = 4) -> str:
    """The mean; if the values differ also their minimum and maximum, in brackets; `-` where a seed has none."""
    all_values = list(values)
    found = [value for value in all_values if value is not None]
    if len(found) < len(all_values):
        return "-"
    mean = f"{np.mean(found):.{digits}f}"
    return mean if min(found) == max(found) else f"{mean} ({span(found, f'.{digits}f')})"


def variants(runs: Sequence[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The runs of each variant."""
    for variant in dict.fromkeys(run["variant"] for run in runs):
        yield variant, [run for run in runs if run["variant"] == variant]


def table_3(runs: Sequence[dict[str, Any]], exits: Sequence[dict[str, Any]], layers: Iterable[int]) -> str:
    """Accuracy and speedup of every variant at its speeds, and of FastBERT where every text exits at one layer.

    Args:
      runs: those of FastBERT first.
      exits: of FastBERT, with their `layer` and `paper_speedup`.
      layers: at which every text exits, in rows of their own.
    """
    speeds = [f"speed {point['speed']:g}" for point in runs[0]["speeds"]]
    rows: list[tuple[object, ...]] = []
    for variant, own in variants(runs):
        cells = [
            f"{over_seeds(at['accuracy'] for at in points)} / {over_seeds((at['paper_speedup'] for at in points), 2)} x"
            for points in zip(*(run["speeds"] for run in own), strict=True)
        ]
        rows.append((variant, len(own), over_seeds(run["full_depth_accuracy"] for run in own), *cells))
    _, fastbert = next(variants(runs))
    places = {found["layer"]: place for place, found in enumerate(exits)}
    for layer in layers:
        place = places[layer]
        accuracy = over_seeds(run["exit_accuracy"][place] for run in fastbert)
        cells = [f"{accuracy} / {exits[place]['paper_speedup']:.2f} x", *[""] * (len(speeds) - 1)]
        rows.append((f"layer {layer} alone", len(fastbert), "", *cells))
    return markdown(("variant", "seeds", "full depth", *speeds), rows)


def at_the_same_speedup(runs: Sequence[dict[str, Any]]) -> str:
    """Accuracy of every variant at a few speedups in the paper's FLOPs."""
    speedups = list(runs[0]["accuracy_at_speedup"])
    rows = [
        (variant, *(over_seeds(run["accuracy_at_speedup"][speedup] for run in own) for speedup in speedups))
        for variant, own in variants(runs)
    ]
    return markdown(("variant", *(f"{speedup}x" for speedup in speedups)), rows)
