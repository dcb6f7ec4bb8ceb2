"""What a model's exits know, as numbers: the FastBERT paper's figures 3 to 6 and its Table 2 for any model."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastbert_jax.report.metrics import Spread

SCHEMA = 1
"""The version of the form of `ExitStudy.to_json`; it rises when a key changes its meaning or goes."""
BINS = 10
"""Of uncertainty, equally wide from 0 to 1, as in the paper's figure 4."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class UncertaintyBin:
    """The texts whose uncertainty, at one exit, is in `[low, high)`; the last bin holds 1 too."""

    low: float
    high: float
    texts: int
    right: int
    """How many of them this exit answers rightly."""

    @property
    def accuracy(self) -> float | None:
        """The share of right answers; None where there is no text."""
        return self.right / self.texts if self.texts else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExitRow:
    """One exit, asked of all texts."""

    layer: int
    accuracy: float
    """Of a model that always stops here: the paper's *without adaptive inference*."""
    agreement: float
    """The share of texts that it gives the last exit's answer."""
    mean_uncertainty: float
    paper_speedup: float
    """Of always stopping here, every exit on the way paid for, as in the paper's Table 3."""
    bins: tuple[UncertaintyBin, ...]
    """Lower Uncertainty, Higher Accuracy (LUHA, the paper's figure 4)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeedPoint:
    """All texts at one speed."""

    speed: float
    accuracy: float
    leaving: tuple[int, ...]
    """Texts that leave after each layer (figure 5)."""
    uncertainty: tuple[float | None, ...]
    """Mean uncertainty of the texts that come to each exit (figure 6); None where none does, or it is not asked."""
    paper_flops: float
    """Per text, as the paper counts."""
    true_flops: float
    """Per text, as spent."""
    paper_speedup: float
    true_speedup: float
    measured: Spread | None = None
    """Speedup in wall-clock time over full depth; None where it was not timed."""

    @property
    def mean_depth(self) -> float:
        """Executed layers per text."""
        return float(np.average(np.arange(1, len(self.leaving) + 1), weights=self.leaving))

    @property
    def median_depth(self) -> float:
        """Executed layers of the text in the middle."""
        return float(np.median(np.repeat(np.arange(1, len(self.leaving) + 1), self.leaving)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaselineRow:
    """Another model on the same texts, at its full depth."""

    name: str
    layers: int
    accuracy: float
    paper_flops: float
    paper_speedup: float
    """Over the studied model at full depth."""
    true_speedup: float
    measured: Spread


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExitStudy:
    """A model on some labelled texts."""

    name: str
    texts: int
    classes: int
    layers: int
    exits: tuple[ExitRow, ...]
    """Those that are asked."""
    full_depth: SpeedPoint
    """Speed 0: plain BERT, no student exit paid for."""
    table: tuple[SpeedPoint, ...]
    """The speeds that were asked for."""
    curve: tuple[SpeedPoint, ...]
    """Speeds evenly from 0 to 1, every exit on the way paid for (figure 3)."""
    origin: dict[str, Any]
    """Command, date, versions, device."""
    mode: str = ""
    """The engine that was timed; empty: nothing was."""
    timed_texts: int = 0
    baselines: tuple[BaselineRow, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values, what follows from the others included."""
        values = dataclasses.asdict(self)
        points = [(self.full_depth, values["full_depth"])]
        points += itertools.chain(
            zip(self.table, values["table"], strict=True), zip(self.curve, values["curve"], strict=True)
        )
        for point, plain in points:
            plain |= {"mean_depth": point.mean_depth, "median_depth": point.median_depth}
        for row, plain in zip(self.exits, values["exits"], strict=True):
            for one, bin_ in zip(row.bins, plain["bins"], strict=True):
                bin_["accuracy"] = one.accuracy
        return {"schema": SCHEMA} | values


def uncertainty_bins(uncertainty_B: np.ndarray, right_B: np.ndarray) -> tuple[UncertaintyBin, ...]:
    """Texts and right answers of one exit by uncertainty.

    Args:
      uncertainty_B: in [0, 1].
      right_B: bool.
    """
    edges = np.linspace(0, 1, BINS + 1)
    bin_B = np.clip(np.searchsorted(edges, uncertainty_B, side="right") - 1, 0, BINS - 1)
    texts, right = (np.bincount(bin_B, weights=weights, minlength=BINS) for weights in (None, right_B))
    return tuple(
        UncertaintyBin(low=float(low), high=float(high), texts=int(count), right=int(good))
        for low, high, count, good in zip(edges[:-1], edges[1:], texts, right, strict=True)
    )


def uncertainty_of_arrivals(
    uncertainty_LxB: np.ndarray, depth_B: np.ndarray, *, asked: Sequence[bool]
) -> tuple[float | None, ...]:
    """Mean uncertainty, at each exit, of the texts that come to it; None where none does, or the exit is not asked.

    Args:
      depth_B: executed layers of each text, 1..L.
      asked: for each layer, whether its exit is.
    """
    arrived_LxB = np.arange(1, len(uncertainty_LxB) + 1)[:, None] <= depth_B
    return tuple(
        float(uncertainty_B[arrived_B].mean()) if arrived_B.any() and is_asked else None
        for uncertainty_B, arrived_B, is_asked in zip(uncertainty_LxB, arrived_LxB, asked, strict=True)
    )
