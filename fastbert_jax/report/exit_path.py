"""The way of one text through the layers, as numbers: what every exit says of it, and where it leaves."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExitAnswer:
    """What the exit after one layer says of a text."""

    layer: int
    """From 1."""
    probabilities: Mapping[str, float]
    """By label, in the model's order."""
    uncertainty: float
    """In [0, 1]."""
    threshold: float
    """The text leaves here when its uncertainty is below this."""
    asked: bool

    @property
    def label(self) -> str:
        """The answer."""
        return max(self.probabilities, key=self.probabilities.__getitem__)

    @property
    def probability(self) -> float:
        """Of the answer."""
        return self.probabilities[self.label]

    def to_json(self) -> dict[str, Any]:
        """Plain values, the answer included."""
        return {"layer": self.layer, "label": self.label, "probability": self.probability} | dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExitPath:
    """What every exit says of one text. All exits were asked, so that any threshold's answer can be told."""

    text: str
    pair: str | None
    """The second text of a pair."""
    exits: tuple[ExitAnswer, ...]
    """One a layer, the teacher last."""
    exit_layer: int
    """How many layers the text goes through before it leaves, 1..L."""

    @property
    def answer(self) -> ExitAnswer:
        """Of the exit by which the text leaves."""
        return self.exits[self.exit_layer - 1]

    def to_json(self) -> dict[str, Any]:
        """Plain values: the text, its answer as `predict` gives it, and under `layers` every exit's."""
        pair = {} if self.pair is None else {"pair": self.pair}
        return {
            "text": self.text,
            **pair,
            "label": self.answer.label,
            "probabilities": dict(self.answer.probabilities),
            "exit_layer": self.exit_layer,
            "uncertainty": self.answer.uncertainty,
            "layers": [exit_.to_json() for exit_ in self.exits],
        }
