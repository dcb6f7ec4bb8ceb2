"""The path of one text through the layers: what every exit predicts, where the text exits, and a table of both."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

BAR = 10
"""Cells of the bar for an uncertainty of 1."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PathStep:
    """What the exit after one layer predicts for a text."""

    layer: int
    """From 1."""
    probabilities: Mapping[str, float]
    """By label, in the model's order."""
    uncertainty: float
    """In [0, 1]."""
    threshold: float
    """The text exits here when its uncertainty is below this."""
    asked: bool

    @property
    def label(self) -> str:
        """The most probable label."""
        return max(self.probabilities, key=self.probabilities.__getitem__)

    @property
    def probability(self) -> float:
        """Of the label."""
        return self.probabilities[self.label]

    def to_json(self) -> dict[str, Any]:
        """Plain values, the label included."""
        return {"layer": self.layer, "label": self.label, "probability": self.probability} | dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExitPath:
    """What every exit predicts for one text. All exits are evaluated, so the answer at any threshold can be read."""

    text: str
    pair: str | None
    """The second text of a pair."""
    steps: tuple[PathStep, ...]
    """One per exit that the model has, the last exit last."""
    exit_layer: int
    """Layers that are executed for the text, 1..L."""

    @property
    def answer(self) -> PathStep:
        """The step at which the text exits."""
        return next(step for step in self.steps if step.layer == self.exit_layer)

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
            "layers": [step.to_json() for step in self.steps],
        }


def show(path: ExitPath, console: Console) -> None:
    """Print the text and one row per exit, in colour where the console has it (not with NO_COLOR or in a pipe)."""
    with console.capture() as lines:
        console.print(rendered(path, unicode=console.encoding.startswith("utf")), soft_wrap=not console.is_terminal)
    for line in lines.get().splitlines():
        print(line.rstrip())


def rendered(path: ExitPath, *, unicode: bool = True) -> Group:
    """The text, a table and an empty line. Layers that do not run are dim.

    Args:
      unicode: whether bars may use block characters.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in ("layer", "answer", "probability", "uncertainty", ""):
        table.add_column(header, justify="right" if header in ("layer", "probability") else "left", no_wrap=True)
    for step in path.steps:
        table.add_row(
            str(step.layer),
            printable(step.label),
            f"{step.probability:.1%}",
            _uncertainty(step, unicode=unicode) if step.asked else "not asked",
            _outcome(step, path),
            style="" if step.layer <= path.exit_layer else "dim",
        )
    texts = [path.text] if path.pair is None else [path.text, path.pair]
    return Group(*(Text(printable(text), style="bold") for text in texts), table, Text())


def printable(text: str) -> str:
    """The text on one line, without control characters, which would change the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def _uncertainty(step: PathStep, *, unicode: bool) -> Text:
    full, empty = ("█", "░") if unicode else ("#", ".")
    cells = round(step.uncertainty * BAR)
    colour = "green" if step.uncertainty < step.threshold else "yellow"
    return Text.assemble(f"{step.uncertainty:.3f} ", (full * cells, colour), (empty * (BAR - cells), "dim"))


def _outcome(step: PathStep, path: ExitPath) -> Text:
    if step.layer < path.exit_layer:
        return Text("goes on")
    if step.layer > path.exit_layer:
        return Text("not run")
    why = "the last layer" if step is path.steps[-1] else f"below {step.threshold:.4g}"
    return Text(f"exits: {why}", style="bold green")
