"""The answer to a text, and answers that print as a table."""

from __future__ import annotations

import dataclasses

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

    @property
    def probability(self) -> float:
        """Of the label."""
        return float(self.probabilities.max())

    def __repr__(self) -> str:
        """The answer in one line; of the probabilities the largest."""
        return (
            f"Prediction(label={self.label!r}, probability={self.probability:.3f}, exit_layer={self.exit_layer}, "
            f"uncertainty={self.uncertainty:.3f})"
        )


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
