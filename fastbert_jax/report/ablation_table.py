"""Ablations as Markdown and as a picture: Table 3's form over several seeds, and variants at equal speedup."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from fastbert_jax.report.ablation import Ablations, VariantRun
from fastbert_jax.report.study_tables import markdown
from fastbert_jax.report.svg_file import save_svg

GRID = 60
"""Points of a line of the picture."""


def render(ablations: Ablations) -> str:
    """The tables, with what a reader must know beside them."""
    first = ablations.runs[0].study
    variants = ablations.variants
    return (
        "\n\n".join(
            [
                f"# {ablations.name}: what each part brings",
                f"{first.texts} test texts, {first.layers} layers. Command: `{first.origin['command']}`. Mean over the "
                "seeds (smallest to largest); FLOPs and speedups as the paper counts them.",
                "## Table 3",
                markdown(
                    ("variant", "seeds", "full depth", *(f"speed {speed:g}" for speed in ablations.speeds)),
                    [
                        *(_row_at_speeds(name, runs, ablations.speeds) for name, runs in variants.items()),
                        *(
                            _row_of_fixed_depth(layer, next(iter(variants.values())), len(ablations.speeds))
                            for layer in ablations.fixed_layers
                        ),
                    ],
                ),
                "At a speed: accuracy / speedup. *Layer k alone* is FastBERT without adaptive inference.",
                "## At equal speedup",
                markdown(
                    ("variant", *(f"{speedup:g}x" for speedup in ablations.speedups)),
                    [
                        (name, *map(_spread, np.transpose([run.accuracy_at(ablations.speedups) for run in runs])))
                        for name, runs in variants.items()
                    ],
                ),
                "Accuracy where the curve of 41 speeds has this speedup, between its two nearest speeds; `-` where all "
                "texts leave at the first layer before.",
            ]
        )
        + "\n"
    )


def draw(ablations: Ablations, path: Path) -> None:
    """Write the picture: accuracy by speedup, a line a variant.

    Raises:
      OSError: the file cannot be written.
    """
    save_svg(path, functools.partial(_accuracy_by_speedup, ablations))


def _accuracy_by_speedup(ablations: Ablations, axes: Axes) -> None:
    fastest = max(point.paper_speedup for run in ablations.runs for point in run.study.curve)
    grid = np.linspace(1, fastest, GRID)
    for name, runs in ablations.variants.items():
        accuracy = np.array([run.accuracy_at(grid) for run in runs])
        (line,) = axes.plot(grid, accuracy.mean(0), label=name)
        if len(runs) > 1:
            axes.fill_between(grid, accuracy.min(0), accuracy.max(0), color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set(xlabel="speedup in FLOPs, as the paper counts them", ylabel="accuracy")
    axes.legend()


def _row_at_speeds(name: str, runs: Sequence[VariantRun], speeds: Sequence[float]) -> Sequence[str]:
    cells = []
    for speed in speeds:
        points = [next(point for point in run.study.table if point.speed == speed) for run in runs]
        speedup = _spread([point.paper_speedup for point in points], digits=2)
        cells.append(f"{_spread([point.accuracy for point in points])} / {speedup} x")
    return (name, str(len(runs)), _spread([run.study.full_depth.accuracy for run in runs]), *cells)


def _row_of_fixed_depth(layer: int, runs: Sequence[VariantRun], width: int) -> Sequence[str]:
    rows = [next(row for row in run.study.exits if row.layer == layer) for run in runs]
    cell = f"{_spread([row.accuracy for row in rows])} / {_spread([row.paper_speedup for row in rows], digits=2)} x"
    return (f"layer {layer} alone", str(len(runs)), "", cell, *[""] * (width - 1))


def _spread(values: Iterable[float], *, digits: int = 4) -> str:
    """Mean, and in brackets the smallest and largest of several."""
    found = np.array(list(values))
    if np.isnan(found).any():
        return "-"
    mean = f"{found.mean():.{digits}f}"
    if len(found) == 1 or found.min() == found.max():
        return mean
    return f"{mean} ({found.min():.{digits}f} to {found.max():.{digits}f})"
