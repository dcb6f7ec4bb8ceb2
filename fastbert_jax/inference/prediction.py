"""The answer to one text, and how a prompt shows several."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from fastbert_jax.report.tables import table

SHOWN = 20
"""Answers of a list that a prompt shows."""


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The answer to one text.

    >>> import fastbert_jax
    >>> answer = fastbert_jax.load("runs/demo").predict(["a quite good film"])[0]
    >>> answer
    Prediction(label='good', probability=0.934, exit_layer=1, uncertainty=0.350)
    >>> answer.label, answer.exit_layer, answer.probabilities.shape
    ('good', 1, (2,))
    """

    label: str
    probabilities: np.ndarray
    """float32 `[N]`, in the order of `Predictor.labels`."""
    exit_layer: int
    """How many layers the text went through, 1..L."""
    uncertainty: float
    """Of the exit that answered, in [0, 1]."""
    labels: tuple[str, ...]
    """All labels, in the order of the probabilities."""

    @property
    def probability(self) -> float:
        """Of the label."""
        return float(self.probabilities.max())

    def most_probable(self, count: int = 0) -> dict[str, float]:
        """The probabilities by label: all in the model's order, or so many, the most probable first."""
        if not count:
            return dict(zip(self.labels, map(float, self.probabilities), strict=True))
        best = np.argsort(-self.probabilities, kind="stable")[:count]
        return {self.labels[one]: float(self.probabilities[one]) for one in best}

    def to_dict(self, *, top: int = 0) -> dict[str, Any]:
        """The answer as `predict` writes it in JSON; `top`: only so many probabilities, the largest first."""
        return {
            "label": self.label,
            "probabilities": {label: short(value) for label, value in self.most_probable(top).items()},
            "exit_layer": self.exit_layer,
            "uncertainty": short(self.uncertainty),
        }

    def __repr__(self) -> str:
        """The answer in one line; of the probabilities the largest."""
        return (
            f"Prediction(label={self.label!r}, probability={self.probability:.3f}, exit_layer={self.exit_layer}, "
            f"uncertainty={self.uncertainty:.3f})"
        )


def short(number: float) -> float:
    """A number with the digits that every float32 has, and no more."""
    return float(f"{number:.7g}")


class Predictions(list[Prediction]):
    """A list of answers that a prompt or a notebook shows as a table."""

    def __repr__(self) -> str:
        """One line an answer; of many, the first ones."""
        rows = [
            (answer.label, f"{answer.probability:.3f}", str(answer.exit_layer), f"{answer.uncertainty:.3f}")
            for answer in self[:SHOWN]
        ]
        lines = [table(("label", "probability", "exit_layer", "uncertainty"), rows)] if rows else ["no predictions"]
        return "\n".join([*lines, f"and {len(self) - SHOWN} more"] if len(self) > SHOWN else lines)
