"""What every exit predicts for some texts, from one pass over them, and so what any speed gives.

Shapes in names: B texts, L layers, N classes.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastbert_jax.config import BATCH_TOKENS
from fastbert_jax.errors import UserError
from fastbert_jax.inference.plan import BatchedTexts
from fastbert_jax.inference.policies import exit_indices
from fastbert_jax.inference.predictor import Predictor
from fastbert_jax.log import progress_bar
from fastbert_jax.model.flops import Count, total_flops
from fastbert_jax.report.comparison import ExitRow, SpeedPoint
from fastbert_jax.report.metrics import bins_of
from fastbert_jax.text.examples import Text

CURVE = tuple(np.linspace(0, 1, 41).round(3).tolist())
"""Speeds of the curves."""


@dataclasses.dataclass(frozen=True)
class ExitOutputs:
    """What every exit predicts for some texts."""

    uncertainty_LxB: np.ndarray
    label_LxB: np.ndarray
    """int; each exit's most probable class."""
    probability_LxB: np.ndarray
    """Of that class."""

    @classmethod
    def of(cls, probabilities_BxLxN: np.ndarray, uncertainty_BxL: np.ndarray) -> ExitOutputs:
        """From what `Predictor.all_exits` gives."""
        return cls(uncertainty_BxL.T, probabilities_BxLxN.argmax(-1).T, probabilities_BxLxN.max(-1).T)

    def depth_B(self, thresholds: float | np.ndarray) -> np.ndarray:
        """Executed layers of each text, 1..L; `thresholds` is one number, or one per layer `[L]`."""
        return exit_indices(self.uncertainty_LxB, thresholds) + 1

    def labels_B(self, thresholds: float | np.ndarray) -> np.ndarray:
        """The class that each text is given at its exit."""
        return at_exit(self.label_LxB, self.depth_B(thresholds))

    def accuracy(self, thresholds: float | np.ndarray, expected_B: np.ndarray) -> float:
        """The share of texts that are given the expected class."""
        return float((self.labels_B(thresholds) == expected_B).mean())

    def mean_depth(self, thresholds: float | np.ndarray) -> float:
        """Executed layers per text."""
        return float(self.depth_B(thresholds).mean())


def at_exit(values_LxB: np.ndarray, depth_B: np.ndarray) -> np.ndarray:
    """Each text's value at its exit, `[B]`; `depth_B` is its executed layers."""
    values_B: np.ndarray = np.take_along_axis(values_LxB, depth_B[None] - 1, axis=0)[0]
    return values_B


def ask_every_exit(predictor: Predictor, plan: BatchedTexts) -> ExitOutputs:
    """Run every exit on every text of a plan, with a progress bar."""
    with progress_bar("all exits", total=plan.texts, unit="texts") as advance:
        return ExitOutputs.of(*predictor.all_exits(plan, on_batch=lambda texts: advance(texts, "")))


class Flops(NamedTuple):
    """Of all texts together, as the paper counts them and as executed."""

    paper: int
    true: int


@dataclasses.dataclass(frozen=True, eq=False)
class EvaluatedTexts:
    """Labelled texts, and what every exit predicts for them."""

    predictor: Predictor
    texts: Sequence[Text]
    expected_B: np.ndarray
    """int, the correct classes."""
    outputs: ExitOutputs
    lengths_B: np.ndarray
    """int, the length that each text is padded to."""
    truncated_texts: int
    """Texts that were longer than the model's maximum length and were truncated."""

    @classmethod
    def of(
        cls,
        predictor: Predictor,
        texts: Sequence[Text],
        expected_B: np.ndarray,
        *,
        batch_tokens: int = BATCH_TOKENS,
    ) -> EvaluatedTexts:
        """Run every exit on all texts.

        Raises:
          UserError: no texts.
        """
        if not len(texts):
            raise UserError("expected at least one text, found none")
        plan = predictor.plan(texts, batch_tokens=batch_tokens)
        outputs = ask_every_exit(predictor, plan)
        return cls(predictor, texts, expected_B, outputs, plan.padded_lengths, plan.truncated_texts)

    @functools.cached_property
    def full_flops(self) -> Flops:
        """Of full depth: all layers and the last exit alone."""
        return self._flops(self._same_depth(self.layers), asked=self._alone(self.layers))

    @property
    def layers(self) -> int:
        """Of the model."""
        return self.predictor.config.num_layers

    @property
    def asked_layers(self) -> list[int]:
        """The layers, from 1, whose exits are asked."""
        return [layer for layer, asked in enumerate(self.predictor.asked_exits, 1) if asked]

    def full_depth(self) -> SpeedPoint:
        """Speed 0: all layers and the last exit alone."""
        return self._point(0.0, self.full_flops)

    def at(self, speed: float, *, masked: bool = False) -> SpeedPoint:
        """All texts at one speed, every asked exit on the way included; `masked` executes all layers and exits."""
        flops = self._flops(self.outputs.depth_B(speed), asked=self.predictor.asked_exits)
        if masked:
            everything = self._flops(self._same_depth(self.layers), asked=self.predictor.network.exits)
            flops = flops._replace(true=everything.true)
        return self._point(speed, flops)

    def exit_row(self, layer: int) -> ExitRow:
        """The exit after a layer (from 1), asked of all texts."""
        label_B, uncertainty_B = self.outputs.label_LxB[layer - 1], self.outputs.uncertainty_LxB[layer - 1]
        right_B, depth_B = label_B == self.expected_B, self._same_depth(layer)
        return ExitRow(
            layer=layer,
            accuracy=float(right_B.mean()),
            agreement=float((label_B == self.outputs.label_LxB[-1]).mean()),
            mean_uncertainty=float(uncertainty_B.mean()),
            paper_speedup=self.full_flops.paper / self._flops(depth_B, asked=self.predictor.asked_exits).paper,
            true_speedup=self.full_flops.true / self._flops(depth_B, asked=self._alone(layer)).true,
            bins=bins_of(uncertainty_B, right_B),
            reliability=bins_of(self.outputs.probability_LxB[layer - 1], right_B),
        )

    def _point(self, speed: float, flops: Flops) -> SpeedPoint:
        depth_B = self.outputs.depth_B(speed)
        return SpeedPoint(
            speed=speed,
            accuracy=self.outputs.accuracy(speed, self.expected_B),
            mean_depth=float(depth_B.mean()),
            paper_flops=flops.paper,
            true_flops=flops.true,
            paper_speedup=self.full_flops.paper / flops.paper,
            true_speedup=self.full_flops.true / flops.true,
            texts_per_exit=tuple(np.bincount(depth_B, minlength=self.layers + 1)[1:].tolist()),
            uncertainty=uncertainty_at_exits(self.outputs.uncertainty_LxB, depth_B, asked=self.predictor.asked_exits),
        )

    def _same_depth(self, layers: int) -> np.ndarray:
        return np.full(len(self.lengths_B), layers)

    def _alone(self, layer: int) -> list[bool]:
        """The exit after a layer (from 1) and no other."""
        return [place == layer for place in range(1, self.layers + 1)]

    def _flops(self, depth_B: np.ndarray, *, asked: Sequence[bool]) -> Flops:
        """Of these executed layers per text, with the asked exits among them."""
        network = self.predictor.network
        return Flops(*(total_flops(count, network, self.lengths_B, depth_B, asked=asked) for count in Count))


def uncertainty_at_exits(
    uncertainty_LxB: np.ndarray, depth_B: np.ndarray, *, asked: Sequence[bool]
) -> tuple[float | None, ...]:
    """Mean uncertainty, at each exit, of the texts that reach it; None where no text does, or the exit is not asked.

    Args:
      depth_B: executed layers of each text, 1..L.
      asked: for each layer, whether its exit is asked.
    """
    reached_LxB = np.arange(1, len(uncertainty_LxB) + 1)[:, None] <= depth_B
    return tuple(
        float(uncertainty_B[reached_B].mean()) if reached_B.any() and is_asked else None
        for uncertainty_B, reached_B, is_asked in zip(uncertainty_LxB, reached_LxB, asked, strict=True)
    )
