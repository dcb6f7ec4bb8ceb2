"""What every exit predicts for some texts, from one pass over them, and so what any speed gives.

Shapes in names: B texts, L layers, N classes.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from fastbert_jax.errors import UserError
from fastbert_jax.inference.plan import BatchedTexts
from fastbert_jax.inference.policies import exit_indices
from fastbert_jax.inference.predictor import Predictor
from fastbert_jax.log import progress_bar
from fastbert_jax.model.flops import Count, total_flops
from fastbert_jax.report.comparison import (
    AnswersAt,
    ClassScores,
    Confusion,
    ExitRow,
    GroupScore,
    SpeedPoint,
    bins_of,
)
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
    def of(cls, predictor: Predictor, plan: BatchedTexts) -> ExitOutputs:
        """Run every exit on every text of a plan, with a progress bar."""
        return cls._of(*_all_exits(predictor, plan))

    @classmethod
    def _of(cls, probabilities_BxLxN: np.ndarray, uncertainty_BxL: np.ndarray) -> ExitOutputs:
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


def _all_exits(predictor: Predictor, plan: BatchedTexts) -> tuple[np.ndarray, np.ndarray]:
    """As `Predictor.all_exits`, with a progress bar."""
    with progress_bar("all exits", total=plan.texts, unit="texts") as advance:
        advance(0, "compiling")
        return predictor.all_exits(plan, on_batch=lambda texts: advance(texts, ""))


def at_exit(values_LxB: np.ndarray, depth_B: np.ndarray) -> np.ndarray:
    """Each text's value at its exit, `[B]`; `depth_B` is its executed layers."""
    values_B: np.ndarray = np.take_along_axis(values_LxB, depth_B[None] - 1, axis=0)[0]
    return values_B


@dataclasses.dataclass(frozen=True, eq=False)
class EvaluatedTexts:
    """Labelled texts, and what every exit predicts for them."""

    predictor: Predictor
    texts: Sequence[Text]
    expected_B: np.ndarray
    """int, the correct classes."""
    outputs: ExitOutputs
    mean_probability_BxN: np.ndarray
    """Of each class, over the exits that are asked."""
    lengths_B: np.ndarray
    """int, the length that each text is padded to."""
    truncated_texts: int
    """Texts that were longer than the model's maximum length and were truncated."""
    groups: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    """Columns of the data to report the accuracy by, with the value of every text."""

    @classmethod
    def of(
        cls,
        predictor: Predictor,
        texts: Sequence[Text],
        expected_B: np.ndarray,
        *,
        batch_tokens: int = 0,
        groups: Mapping[str, Sequence[str]] | None = None,
    ) -> EvaluatedTexts:
        """Run every exit on all texts.

        Raises:
          UserError: no texts.
        """
        if not len(texts):
            raise UserError("expected at least one text, found none")
        plan = predictor.plan(texts, batch_tokens=batch_tokens)
        probabilities_BxLxN, uncertainty_BxL = _all_exits(predictor, plan)
        return cls(
            predictor,
            texts,
            expected_B,
            outputs=ExitOutputs._of(probabilities_BxLxN, uncertainty_BxL),
            mean_probability_BxN=probabilities_BxLxN[:, np.array(predictor.asked_exits)].mean(1),
            lengths_B=plan.padded_lengths,
            truncated_texts=plan.truncated_texts,
            groups=groups or {},
        )

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
        return self._point(0.0, **self._full_flops)

    def at(self, speed: float, *, masked: bool = False) -> SpeedPoint:
        """All texts at one speed, every asked exit on the way included; `masked` executes all layers and exits."""
        asked, depth_B = self.predictor.asked_exits, self.outputs.depth_B(speed)
        spent = self._flops(Count.TRUE, self.layers) if masked else self._flops(Count.TRUE, depth_B, asked)
        return self._point(speed, paper_flops=self._flops(Count.PAPER, depth_B, asked), true_flops=spent)

    def recommended(self) -> SpeedPoint | None:
        """All texts at the model's recommended speed; None where it has none for the exits that are asked."""
        speed = self.predictor.recommended_speed
        return None if speed is None else self.at(speed)

    def exit_row(self, layer: int) -> ExitRow:
        """The exit after a layer (from 1), asked of all texts."""
        label_B, uncertainty_B = self.outputs.label_LxB[layer - 1], self.outputs.uncertainty_LxB[layer - 1]
        right_B = label_B == self.expected_B
        full = self._full_flops
        return ExitRow(
            layer=layer,
            accuracy=float(right_B.mean()),
            agreement=float((label_B == self.outputs.label_LxB[-1]).mean()),
            mean_uncertainty=float(uncertainty_B.mean()),
            paper_speedup=full["paper_flops"] / self._flops(Count.PAPER, layer, self.predictor.asked_exits),
            true_speedup=full["true_flops"] / self._flops(Count.TRUE, layer, self._alone(layer)),
            bins=bins_of(uncertainty_B, right_B),
            reliability=bins_of(self.outputs.probability_LxB[layer - 1], right_B),
        )

    def answers_at(self, speed: float) -> AnswersAt:
        """All texts at one speed, by class and by group."""
        label_B, labels = self.outputs.labels_B(speed), self.predictor.labels
        right_B, classes = label_B == self.expected_B, len(labels)
        counts = [np.bincount(one, minlength=classes).tolist() for one in (self.expected_B, label_B, label_B[right_B])]
        pair_B = self.expected_B.astype(np.int64) * classes + label_B
        pairs, texts = np.unique(pair_B[~right_B], return_counts=True)
        order = np.argsort(-texts, kind="stable")
        return AnswersAt(
            speed=speed,
            classes=tuple(
                ClassScores(label=label, texts=texts, given=given, right=right)
                for label, texts, given, right in zip(labels, *counts, strict=True)
            ),
            confusions=tuple(
                Confusion(expected=labels[pair // classes], given=labels[pair % classes], texts=count)
                for pair, count in zip(pairs[order].tolist(), texts[order].tolist(), strict=True)
            ),
            groups=tuple(
                GroupScore(column=column, value=value, texts=texts, right=right)
                for column, (values, place_B) in self._groups.items()
                for value, texts, right in zip(
                    values,
                    np.bincount(place_B).tolist(),
                    np.bincount(place_B[right_B], minlength=len(values)).tolist(),
                    strict=True,
                )
            ),
        )

    @functools.cached_property
    def _groups(self) -> dict[str, tuple[list[str], np.ndarray]]:
        """For each column its values, the most frequent first, and each text's, by its place among them."""
        found = {}
        for column, values in self.groups.items():
            places = {value: place for place, (value, _) in enumerate(Counter(values).most_common())}
            found[column] = list(places), np.array([places[value] for value in values])
        return found

    def gained_and_lost(self, right_B: np.ndarray) -> tuple[int, int]:
        """Texts that others answer correctly and full depth does not, and the reverse; `right_B`: bool, theirs."""
        full_B = self.outputs.label_LxB[-1] == self.expected_B
        return int((right_B & ~full_B).sum()), int((full_B & ~right_B).sum())

    def _point(self, speed: float, *, paper_flops: int, true_flops: int) -> SpeedPoint:
        depth_B = self.outputs.depth_B(speed)
        right_B = at_exit(self.outputs.label_LxB, depth_B) == self.expected_B
        gained, lost = self.gained_and_lost(right_B)
        return SpeedPoint(
            speed=speed,
            accuracy=float(right_B.mean()),
            gained=gained,
            lost=lost,
            mean_depth=float(depth_B.mean()),
            paper_flops=paper_flops,
            true_flops=true_flops,
            paper_speedup=self._full_flops["paper_flops"] / paper_flops,
            true_speedup=self._full_flops["true_flops"] / true_flops,
            texts_per_exit=tuple(np.bincount(depth_B, minlength=self.layers + 1)[1:].tolist()),
            uncertainty=uncertainty_at_exits(self.outputs.uncertainty_LxB, depth_B, asked=self.predictor.asked_exits),
        )

    @functools.cached_property
    def _full_flops(self) -> dict[str, int]:
        """Of full depth, of all texts together: all layers and the last exit alone."""
        asked = self._alone(self.layers)
        return {f"{count.value}_flops": self._flops(count, self.layers, asked) for count in Count}

    def _alone(self, layer: int) -> list[bool]:
        """The exit after a layer (from 1) and no other."""
        return [place == layer for place in range(1, self.layers + 1)]

    def _flops(self, count: Count, depth: int | np.ndarray, asked: Sequence[bool] | None = None) -> int:
        """Of all texts together, with these executed layers, one number or `[B]`; `asked`: the exits, all if None."""
        depth_B = np.broadcast_to(depth, self.lengths_B.shape)
        network = self.predictor.network
        return total_flops(count, network, self.lengths_B, depth_B, asked=asked or network.exits)


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
