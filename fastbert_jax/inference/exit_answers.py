"""What every exit said of some texts, and so what any speed gives.

Shapes in names: B texts, L layers, N classes.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from fastbert_jax.inference.plan import BatchedTexts
from fastbert_jax.inference.policies import exit_indices
from fastbert_jax.inference.predictor import Predictor
from fastbert_jax.report.metrics import accuracy
from fastbert_jax.report.progress import progress_bar


@dataclasses.dataclass(frozen=True)
class ExitAnswers:
    """What every exit said of some texts."""

    uncertainty_LxB: np.ndarray
    label_LxB: np.ndarray
    """int; each exit's answer."""

    @classmethod
    def of(cls, probabilities_BxLxN: np.ndarray, uncertainty_BxL: np.ndarray) -> ExitAnswers:
        """From what `Predictor.all_exits` gives."""
        return cls(uncertainty_BxL.T, probabilities_BxLxN.argmax(-1).T)

    def depth_B(self, thresholds: float | np.ndarray) -> np.ndarray:
        """Executed layers of each text, 1..L."""
        return exit_indices(self.uncertainty_LxB, thresholds) + 1

    def answer_B(self, thresholds: float | np.ndarray) -> np.ndarray:
        """The answer to each text."""
        return np.take_along_axis(self.label_LxB, self.depth_B(thresholds)[None] - 1, axis=0)[0]

    def accuracy(self, thresholds: float | np.ndarray, expected_B: np.ndarray) -> float:
        """The share of right answers."""
        return accuracy(self.answer_B(thresholds), expected_B)

    def mean_depth(self, thresholds: float | np.ndarray) -> float:
        """Executed layers per text."""
        return float(self.depth_B(thresholds).mean())


def ask_every_exit(predictor: Predictor, plan: BatchedTexts) -> tuple[np.ndarray, np.ndarray]:
    """`Predictor.all_exits` with a progress bar."""
    with progress_bar("all exits", total=plan.texts, unit="texts") as advance:
        return predictor.all_exits(plan, on_batch=lambda texts: advance(texts, ""))
