"""FastBERT (Liu et al. 2020, section 3.2): fine-tune the backbone and the last exit on labels, then self-distil.

The paper calls the last exit the teacher and the lower exits the students.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from fastbert_jax.config import DistilConfig, FineTuneConfig, TrainConfig

if TYPE_CHECKING:
    from fastbert_jax.model.bert import Bert
    from fastbert_jax.training.recipe import Recipe, World
    from fastbert_jax.training.terms import Phase

STORY = "Labels trained the backbone and the last exit; then both were frozen, and the last exit trained the others."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(TrainConfig):
    """A run of FastBERT: fine-tune, self-distil, evaluate."""

    recipe: str = "fastbert"
    fine_tune: FineTuneConfig = dataclasses.field(default_factory=FineTuneConfig)
    distil: DistilConfig = dataclasses.field(default_factory=DistilConfig)


def make(settings: Settings, world: World) -> Recipe:
    """The two phases; a model of one layer has the first alone."""
    from fastbert_jax.training.recipe import Recipe, model_start

    start = model_start(settings.model, world)
    phases = (fine_tuning(start.network, settings.fine_tune), *self_distillation(start.network, settings.distil))
    return Recipe({"model": start}, phases, STORY)


def fine_tuning(network: Bert, settings: FineTuneConfig, *, lower_exits: bool = False) -> Phase:
    """Labels train the backbone and the last exit (the paper's fine-tuning, section 3.2.1), or the lower exits too."""
    from fastbert_jax.model.flops import training_flops
    from fastbert_jax.model.network import Part
    from fastbert_jax.training.losses import cross_entropy
    from fastbert_jax.training.recipe import forward
    from fastbert_jax.training.terms import COMPUTED, Case, Keep, Phase, Ref, Term

    label = Ref("batch", "label_BxK")
    terms = [Term("label", Ref("model", "logits_BxKxN"), label, cross_entropy)]
    trains = {"model/backbone": 1.0, "model/last_exit": settings.teacher_rate}
    dropout_in, exits = [Part.BACKBONE, Part.LAST_EXIT], 1
    if lower_exits and network.config.lower_exit_layers:
        terms.append(Term("lower_exits", Ref("model", "lower_logits_LxBxKxN"), label, cross_entropy))
        trains["model/lower_exits"] = 1.0
        dropout_in.append(Part.LOWER_EXITS)
        exits = len(network.config.exit_layers)
    case = Case(
        sources={"model": forward(network, *dropout_in)},
        terms=tuple(terms),
        trains=trains,
        row_flops=lambda length, texts: training_flops(network, length, texts=texts, exits=exits),
    )
    return Phase("fine_tune", {COMPUTED: case}, Keep.BEST, settings)


def self_distillation(network: Bert, settings: DistilConfig) -> tuple[Phase, ...]:
    """The last exit teaches the lower exits (section 3.2.2); no phase for a network without lower exits.

    Equation 6, the sum of equation 5 over the students, is the sum over the first axis of `lower_logits_LxBxKxN` that
    every term makes. The backbone and the last exit take no dropout, unless `noisy_teacher` asks for the released
    code's behaviour.
    """
    from fastbert_jax.model.flops import distillation_flops
    from fastbert_jax.model.network import Part
    from fastbert_jax.training.losses import KL_LOSSES
    from fastbert_jax.training.recipe import forward
    from fastbert_jax.training.terms import COMPUTED, KEPT, Case, Keep, Phase, Ref, Term

    if not network.config.lower_exit_layers:
        return ()
    last_exit = Ref("model", "logits_BxKxN")
    dropout_in = tuple(Part) if settings.noisy_teacher else (Part.LOWER_EXITS,)
    term = Term("kl", Ref("model", "lower_logits_LxBxKxN"), last_exit, KL_LOSSES[settings.kl])
    case = Case(
        sources={"model": forward(network, *dropout_in)},
        terms=(term,),
        trains={"model/lower_exits": 1.0},
        row_flops=lambda length, texts: distillation_flops(network, length, texts=texts),
    )
    cases = {COMPUTED: case}
    if settings.cache_teacher:
        cases[COMPUTED] = dataclasses.replace(case, keeps=last_exit)
        cases[KEPT] = dataclasses.replace(
            case,
            sources={"model": forward(network, *dropout_in, depth=network.config.lower_exit_layers[-1])},
            terms=(dataclasses.replace(term, target=Ref("kept", "values_BxKxN")),),
            row_flops=lambda length, texts: distillation_flops(network, length, texts=texts, targets_known=True),
        )
    return (Phase("distil", cases, Keep.LAST, settings),)
