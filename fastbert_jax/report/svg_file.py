"""One picture as one SVG file: the same numbers give the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fastbert_jax.atomic_files import atomic_file

SIZE = (6.4, 4.0)
"""Inches."""
STYLE: Any = {
    "svg.hashsalt": "fastbert_jax",
    "svg.fonttype": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
}


def save_svg(path: Path, plot: Callable[[Axes], None]) -> None:
    """Let `plot` draw, and write what it drew, whole.

    Raises:
      OSError: the file cannot be written.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        plot(figure.add_subplot())
        with atomic_file(path, "wb") as stream:
            figure.savefig(stream, format="svg", metadata={"Date": None, "Title": path.stem})
