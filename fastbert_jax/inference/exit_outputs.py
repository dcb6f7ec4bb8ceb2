"""Labelled texts whose every exit has been asked, in one pass: what any speed and any exit alone make of them.

Shapes in names: B texts, L layers, N classes.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastbert_jax.config import BATCH_TOKENS, BertConfig
from fastbert_jax.errors import UserError
from fastbert_jax.inference.exit_answers import ExitAnswers, ask_every_exit
from fastbert_jax.inference.predictor import Predictor
from fastbert_jax.report.exit_study import ExitRow, SpeedPoint, uncertainty_bins, uncertainty_of_arrivals
from fastbert_jax.report.flops import Count, only_the_last, total_flops
from fastbert_jax.text.examples import Text

CURVE = tuple(np.linspace(0, 1, 41).round(3).tolist())
"""Speeds of the curves."""


class Flops(NamedTuple):
    """Per text, as the paper counts and as spent."""

    paper: float
    true: float


@dataclasses.dataclass(frozen=True, eq=False)
class AskedTexts:
    """Labelled texts, and what every exit said of them."""

    predictor: Predictor
    texts: Sequence[Text]
    expected_B: np.ndarray
    """int, the right answers as indices into the predictor's labels."""
    exits: ExitAnswers
    confidence_LxB: np.ndarray
    """The probability that each exit gives to its answer."""
    lengths_B: np.ndarray
    """int, what each text is padded to."""
    truncated_texts: int
    """Texts that were longer than the model's longest, and lost their end."""

    @classmethod
    def of(
        cls,
        predictor: Predictor,
        texts: Sequence[Text],
        expected_B: np.ndarray,
        *,
        batch_tokens: int = BATCH_TOKENS,
    ) -> AskedTexts:
        """Ask every exit of all texts.

        Raises:
          UserError: no texts.
        """
        if not len(texts):
            raise UserError("expected at least one text, found none")
        plan = predictor.plan(texts, batch_tokens=batch_tokens)
        probabilities_BxLxN, uncertainty_BxL = ask_every_exit(predictor, plan)
        return cls(
            predictor,
            texts,
            expected_B,
            ExitAnswers.of(probabilities_BxLxN, uncertainty_BxL),
            probabilities_BxLxN.max(-1).T,
            plan.padded_lengths,
            plan.truncated_texts,
        )

    @functools.cached_property
    def full_flops(self) -> Flops:
        """Of plain BERT: all layers and the teacher."""
        return full_depth_flops(self.predictor.config, self.lengths_B)

    def full_depth(self) -> SpeedPoint:
        """Speed 0: plain BERT, no student exit paid for."""
        return self.point(0.0, asked=only_the_last(self.predictor.config))

    def point(self, speed: float, *, asked: Sequence[bool] | None = None) -> SpeedPoint:
        """One speed, beside full depth; `asked` is which exits are paid for, by default the predictor's."""
        config, depth_B = self.predictor.config, self.exits.depth_B(speed)
        flops = flops_per_text(
            config, self.lengths_B, depth_B, asked=self.predictor.asked_exits if asked is None else asked
        )
        return SpeedPoint(
            speed=speed,
            accuracy=self.exits.accuracy(speed, self.expected_B),
            leaving=tuple(np.bincount(depth_B, minlength=config.num_layers + 1)[1:].tolist()),
            uncertainty=uncertainty_of_arrivals(self.exits.uncertainty_LxB, depth_B, asked=self.predictor.asked_exits),
            paper_flops=flops.paper,
            true_flops=flops.true,
            paper_speedup=self.full_flops.paper / flops.paper,
            true_speedup=self.full_flops.true / flops.true,
        )

    def exit_row(self, layer: int) -> ExitRow:
        """The exit after a layer (from 1), asked of all texts."""
        label_B, uncertainty_B = self.exits.label_LxB[layer - 1], self.exits.uncertainty_LxB[layer - 1]
        right_B = label_B == self.expected_B
        return ExitRow(
            layer=layer,
            accuracy=float(right_B.mean()),
            agreement=float((label_B == self.exits.label_LxB[-1]).mean()),
            mean_uncertainty=float(uncertainty_B.mean()),
            paper_speedup=self.full_flops.paper / self.stopping_at(layer, self.predictor.asked_exits).paper,
            bins=uncertainty_bins(uncertainty_B, right_B),
        )

    def stopping_at(self, layer: int, asked: Sequence[bool]) -> Flops:
        """Of always stopping at a layer (from 1), with these exits paid for on the way."""
        depth_B = np.full(len(self.lengths_B), layer)
        return flops_per_text(self.predictor.config, self.lengths_B, depth_B, asked=asked)

    def asked_layers(self) -> list[int]:
        """The layers, from 1, whose exits are asked."""
        return (np.flatnonzero(self.predictor.asked_exits) + 1).tolist()


def full_depth_flops(config: BertConfig, lengths_B: np.ndarray) -> Flops:
    """Of plain BERT: all layers and the teacher."""
    return flops_per_text(config, lengths_B, np.full(len(lengths_B), config.num_layers), asked=only_the_last(config))


def flops_per_text(config: BertConfig, lengths_B: np.ndarray, depth_B: np.ndarray, *, asked: Sequence[bool]) -> Flops:
    """Of texts that each run so many layers, with these exits paid for."""
    total = functools.partial(total_flops, config=config, lengths=lengths_B, executed_layers=depth_B, asked=asked)
    return Flops(total(Count.PAPER) / len(depth_B), total(Count.TRUE) / len(depth_B))
