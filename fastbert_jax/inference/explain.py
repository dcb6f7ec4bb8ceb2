"""The explain command: the path of single texts through the layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fastbert_jax.config import ExplainConfig
from fastbert_jax.inference.calibrate import thresholds_in_use
from fastbert_jax.inference.loading import load
from fastbert_jax.inference.policies import exit_indices, layer_thresholds
from fastbert_jax.inference.predictor import Predictor
from fastbert_jax.log import info
from fastbert_jax.report.exit_path import ExitPath, PathStep
from fastbert_jax.text.examples import Text


def explain(config: ExplainConfig) -> list[ExitPath]:
    """The paths of the texts that `infer.py explain` is given.

    Raises:
      UserError: no model, a backbone without exits, or no calibration for the target.
    """
    speed, exits = thresholds_in_use(config.model, config.target, speed=config.speed, exits=config.exits)
    predictor = load(config.model, exits=exits)
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
    return [
        ExitPath(
            text=text if isinstance(text, str) else text[0],
            pair=None if isinstance(text, str) else text[1],
            steps=tuple(_steps(predictor, probabilities_LxN, uncertainty_L, thresholds_L)),
            exit_layer=int(depth),
        )
        for text, probabilities_LxN, uncertainty_L, depth in zip(
            texts, probabilities_BxLxN, uncertainty_BxL, depth_B, strict=True
        )
    ]


def _steps(
    predictor: Predictor, probabilities_LxN: np.ndarray, uncertainty_L: np.ndarray, thresholds_L: np.ndarray
) -> Iterator[PathStep]:
    for layer in predictor.config.exit_layers:
        index = layer - 1
        yield PathStep(
            layer=layer,
            probabilities=dict(zip(predictor.labels, map(float, probabilities_LxN[index]), strict=True)),
            uncertainty=float(uncertainty_L[index]),
            threshold=float(thresholds_L[index]),
            asked=predictor.asked_exits[index],
        )
