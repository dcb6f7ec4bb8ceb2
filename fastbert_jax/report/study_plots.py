"""A study of a model's exits as SVG pictures: the FastBERT paper's figures 3 to 6, and accuracy against time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from fastbert_jax.report.exit_study import ExitStudy
from fastbert_jax.report.svg_file import save_svg

SHALLOW_TO_DEEP = "viridis"
"""Colours of layers: they keep their order for colour-blind readers and in grey."""


def draw(study: ExitStudy, directory: Path) -> list[Path]:
    """Write one SVG file per picture; their paths.

    Raises:
      OSError: a file cannot be written.
    """
    paths = {name: directory / f"{name}.svg" for name in PICTURES}
    for name, path in paths.items():
        save_svg(path, functools.partial(PICTURES[name], study))
    return list(paths.values())


def _accuracy_by_speedup(study: ExitStudy, axes: Axes) -> None:
    """What early exit buys, in the FLOPs of the paper and in time, beside exits at fixed depth and other models."""
    axes.plot([p.paper_speedup for p in study.curve], [p.accuracy for p in study.curve], label="speeds 0 to 1, FLOPs")
    axes.plot(
        [row.paper_speedup for row in study.exits],
        [row.accuracy for row in study.exits],
        "s--",
        label="always one exit, FLOPs",
    )
    timed = [(p.measured.median, p.accuracy, p.speed) for p in study.table if p.measured]
    if timed:
        axes.plot([x for x, _, _ in timed], [y for _, y, _ in timed], "o-", label=f"speeds, wall clock ({study.mode})")
        for x, y, speed in timed:
            axes.annotate(f"{speed:g}", (x, y), textcoords="offset points", xytext=(4, 4))
    for row in study.baselines:
        axes.plot([row.measured.median], [row.accuracy], "^", label=f"{row.name}, wall clock")
    axes.axhline(study.full_depth.accuracy, color="grey", linewidth=0.8, linestyle=":", label="full depth")
    axes.set(xlabel="speedup over full depth", ylabel="accuracy")
    axes.legend()


def _accuracy_by_speed(study: ExitStudy, axes: Axes) -> None:
    """Figure 3: speed against accuracy and against the paper's speedup."""
    speeds = [point.speed for point in study.curve]
    axes.plot(speeds, [point.accuracy for point in study.curve], label="accuracy")
    axes.set(xlabel="speed", ylabel="accuracy")
    other = axes.twinx()
    other.plot(speeds, [point.paper_speedup for point in study.curve], "--", color="tab:orange", label="speedup, FLOPs")
    other.set_ylabel("speedup in FLOPs, as the paper counts them")
    lines = [*axes.get_lines(), *other.get_lines()]
    axes.legend(lines, [str(line.get_label()) for line in lines], loc="lower left")


def _accuracy_by_uncertainty(study: ExitStudy, axes: Axes) -> None:
    """Figure 4: the lower the uncertainty, the higher the accuracy."""
    for row, colour in zip(study.exits, _colours(study), strict=True):
        found = [((one.low + one.high) / 2, one.accuracy) for one in row.bins if one.accuracy is not None]
        axes.plot([x for x, _ in found], [y for _, y in found], "o-", color=colour, label=f"exit {row.layer}")
    axes.set(xlabel="uncertainty", ylabel="accuracy", xlim=(0, 1))
    axes.legend()


def _exits_by_speed(study: ExitStudy, axes: Axes) -> None:
    """Figure 5: where texts leave."""
    layers, width = np.arange(1, study.layers + 1), 0.8 / max(len(study.table), 1)
    for place, point in enumerate(study.table):
        share = np.array(point.leaving) / study.texts
        label = f"speed {point.speed:g}, mean depth {point.mean_depth:.2f}"
        axes.bar(layers + (place - (len(study.table) - 1) / 2) * width, share, width, label=label)
    axes.set(xlabel="layer after which texts leave", ylabel="share of texts", xticks=layers)
    axes.legend()


def _uncertainty_by_layer(study: ExitStudy, axes: Axes) -> None:
    """Figure 6: how sure the exits are of the texts that come to them."""
    for point in (study.curve[0], *study.table):
        found = [(layer, value) for layer, value in enumerate(point.uncertainty, 1) if value is not None]
        axes.plot([x for x, _ in found], [y for _, y in found], "o-", label=f"speed {point.speed:g}")
    axes.set(xlabel="layer", ylabel="mean uncertainty of the texts that come there", ylim=(0, 1))
    axes.set_xticks(range(1, study.layers + 1))
    axes.legend()


def _colours(study: ExitStudy) -> np.ndarray:
    return mpl.colormaps[SHALLOW_TO_DEEP](np.linspace(0, 0.9, len(study.exits)))


PICTURES: dict[str, Callable[[ExitStudy, Axes], None]] = {
    "accuracy_by_speedup": _accuracy_by_speedup,
    "accuracy_by_speed": _accuracy_by_speed,
    "accuracy_by_uncertainty": _accuracy_by_uncertainty,
    "exits_by_speed": _exits_by_speed,
    "uncertainty_by_layer": _uncertainty_by_layer,
}
