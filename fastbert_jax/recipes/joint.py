"""All exits learn the labels at once: the ablation *without self-distillation* of the FastBERT paper (section 4.5)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from fastbert_jax.recipes import fastbert

if TYPE_CHECKING:
    from fastbert_jax.training.recipe import Recipe, World

STORY = "Labels trained the backbone and all exits at once."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(fastbert.Settings):
    """A run in which labels train all exits; the settings are FastBERT's, so that it reads the same files, and `distil`
    is not used."""

    recipe: str = "joint"


def make(settings: Settings, world: World) -> Recipe:
    """The one phase."""
    from fastbert_jax.training.recipe import Recipe, model_start

    start = model_start(settings.model, world)
    phase = fastbert.fine_tuning(start.network, settings.fine_tune, lower_exits=True)
    return Recipe({"model": start}, (phase,), STORY)
