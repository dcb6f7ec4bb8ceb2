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
    from fastbert_jax.model.flops import training_flops
    from fastbert_jax.model.network import Part
    from fastbert_jax.training.losses import cross_entropy
    from fastbert_jax.training.recipe import Recipe, forward, model_start
    from fastbert_jax.training.terms import COMPUTED, Case, Keep, Phase, Ref, Stream, Term

    start = model_start(settings.model, world)
    network, label = start.network, Ref("batch", "label_BxK")
    terms = [Term("label", Ref("model", "logits_BxKxN"), label, cross_entropy)]
    trains = {"model/backbone": 1.0, "model/last_exit": settings.fine_tune.teacher_rate}
    if network.config.lower_exit_layers:
        terms.append(Term("lower_exits", Ref("model", "lower_logits_LxBxKxN"), label, cross_entropy))
        trains["model/lower_exits"] = 1.0
    exits = len(network.config.exit_layers)
    case = Case(
        sources={"model": forward(network, *Part)},
        terms=tuple(terms),
        trains=trains,
        row_flops=lambda length, texts: training_flops(network, length, texts=texts, exits=exits),
    )
    phase = Phase("fine_tune", {COMPUTED: case}, Stream.LABELLED, Keep.BEST, settings.fine_tune)
    return Recipe({"model": start}, (phase,), STORY)
