"""What every exit predicts for a text and where the text exits, and the table of `infer.py explain`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NotRequired, TypedDict, cast

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text as Styled

from fastbert_jax.config import ExplainConfig
from fastbert_jax.inference.loading import load_in_use
from fastbert_jax.inference.policies import exit_indices, layer_thresholds
from fastbert_jax.inference.predictor import Predictor
from fastbert_jax.log import info
from fastbert_jax.text.columns import NO_PAIR
from fastbert_jax.text.examples import Text

BAR = 10
"""Cells of the bar for an uncertainty of 1."""


class PathStep(TypedDict):
    """What the exit after one layer predicts for a text."""

    layer: int
    """From 1."""
    label: str
    """The most probable one."""
    probability: float
    """Of the label."""
    probabilities: dict[str, float]
    """By label, in the model's order."""
    uncertainty: float
    """In [0, 1]."""
    threshold: float
    """The text exits here when its uncertainty is below this."""
    asked: bool


class ExitPath(TypedDict):
    """One text, its answer as `predict` gives it, and every exit's. All exits are evaluated, so the answer at any
    threshold can be read."""

    text: str
    pair: NotRequired[str]
    """The second text of a pair."""
    label: str
    probabilities: dict[str, float]
    exit_layer: int
    """Layers that are executed for the text, 1..L."""
    uncertainty: float
    layers: list[PathStep]
    """One per exit that the model has, the last exit last."""


def explain(config: ExplainConfig) -> list[ExitPath]:
    """The paths of the texts that `infer.py explain` is given.

    Raises:
      UserError: no model, a backbone without exits, or no calibration for the target.
    """
    predictor, speed = load_in_use(config)
    if predictor.reading and predictor.reading.pair_column != NO_PAIR and not config.pair:
        info("the model was trained on pairs of texts; give the second text of each after --pair")
    texts = list(zip(config.texts, config.pair, strict=True)) if config.pair else list(config.texts)
    return exit_paths(predictor, texts, speed)


def exit_paths(predictor: Predictor, texts: Sequence[Text], speed: float | np.ndarray) -> list[ExitPath]:
    """Run every exit on every text; one path per text, in their order.

    Args:
      speed: one threshold, or one per layer `[L]`.

    Raises:
      UserError: a backbone without exits, no list of texts, or a threshold out of [0, 1].
    """
    predictor.require_exits()
    thresholds_L = layer_thresholds(speed, predictor.config.num_layers)
    plan = predictor.plan(texts)
    if plan.truncated_texts:
        info(f"{plan.truncated_texts} texts have more than {predictor.max_length} tokens and were cut")
    probabilities_BxLxN, uncertainty_BxL = predictor.all_exits(plan)
    depth_B = exit_indices(uncertainty_BxL.T, thresholds_L) + 1
    paths = []
    for text, probabilities_LxN, uncertainty_L, depth in zip(
        texts, probabilities_BxLxN, uncertainty_BxL, depth_B, strict=True
    ):
        steps = [
            _step(predictor, layer, probabilities_LxN[layer - 1], uncertainty_L[layer - 1], thresholds_L[layer - 1])
            for layer in predictor.config.exit_layers
        ]
        answer = next(step for step in steps if step["layer"] == depth)
        path = {
            **({"text": text} if isinstance(text, str) else {"text": text[0], "pair": text[1]}),
            "label": answer["label"],
            "probabilities": answer["probabilities"],
            "exit_layer": int(depth),
            "uncertainty": answer["uncertainty"],
            "layers": steps,
        }
        paths.append(cast(ExitPath, path))
    return paths


def _step(
    predictor: Predictor, layer: int, probabilities_N: np.ndarray, uncertainty: float, threshold: float
) -> PathStep:
    best = int(probabilities_N.argmax())
    return {
        "layer": layer,
        "label": predictor.labels[best],
        "probability": float(probabilities_N[best]),
        "probabilities": dict(zip(predictor.labels, map(float, probabilities_N), strict=True)),
        "uncertainty": float(uncertainty),
        "threshold": float(threshold),
        "asked": predictor.asked_exits[layer - 1],
    }


def show(path: ExitPath, console: Console) -> None:
    """Print the text and one row per exit, in colour where the console has it (not with NO_COLOR or in a pipe).

    Layers that do not run are dim.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in ("layer", "answer", "probability", "uncertainty", ""):
        table.add_column(header, justify="right" if header in ("layer", "probability") else "left", no_wrap=True)
    for step in path["layers"]:
        table.add_row(
            str(step["layer"]),
            Styled(printable(step["label"])),
            f"{step['probability']:.1%}",
            _uncertainty(step, "█░" if console.encoding.startswith("utf") else "#.") if step["asked"] else "not asked",
            _outcome(step, path),
            style="" if step["layer"] <= path["exit_layer"] else "dim",
        )
    texts = [Styled(printable(text), style="bold") for text in (path["text"], path.get("pair")) if text is not None]
    with console.capture() as lines:
        console.print(*texts, table, Styled(), sep="\n", soft_wrap=not console.is_terminal)
    for line in lines.get().splitlines():
        print(line.rstrip())


def printable(text: str) -> str:
    """The text on one line, without control characters, which would change the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def _uncertainty(step: PathStep, cells: str) -> Styled:
    """The number and a bar, of a full and an empty cell's character."""
    full = round(step["uncertainty"] * BAR)
    colour = "green" if step["uncertainty"] < step["threshold"] else "yellow"
    return Styled.assemble(f"{step['uncertainty']:.3f} ", (full * cells[0], colour), ((BAR - full) * cells[1], "dim"))


def _outcome(step: PathStep, path: ExitPath) -> Styled:
    if step["layer"] < path["exit_layer"]:
        return Styled("goes on")
    if step["layer"] > path["exit_layer"]:
        return Styled("not run")
    why = "the last layer" if step is path["layers"][-1] else f"below {step['threshold']:.4g}"
    return Styled(f"exits: {why}", style="bold green")
