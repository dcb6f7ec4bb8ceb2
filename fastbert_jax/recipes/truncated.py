"""A BERT of fixed depth: the first layers of a trained model learn the answers of the whole model, without labels.

The baselines of the FastBERT paper's Table 2 are such models of 6, 3 and 1 layers (there after DistilBERT, Sanh et al.
2019). This one begins with the trained model's own first layers and the exit after them; afterwards its last exit
teaches its lower exits, so that it can exit early too.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from fastbert_jax.config import DistilConfig, TrainConfig, TruncateConfig
from fastbert_jax.errors import UserError
from fastbert_jax.recipes.fastbert import self_distillation

if TYPE_CHECKING:
    from fastbert_jax.training.recipe import Recipe, World

STORY = "The first layers of a trained model learned its answers; then its last exit trained the others."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(TrainConfig):
    """A run that makes a model of the first `--model.first-layers` layers of `--model.pretrained`, a trained model."""

    recipe: str = "truncated"
    truncate: TruncateConfig = dataclasses.field(default_factory=TruncateConfig)
    distil: DistilConfig = dataclasses.field(default_factory=DistilConfig)


def make(settings: Settings, world: World) -> Recipe:
    """The two phases; the second is FastBERT's."""
    from fastbert_jax.training.losses import KL_LOSSES
    from fastbert_jax.training.recipe import Recipe, distillation_case, model_start, trained_start
    from fastbert_jax.training.terms import COMPUTED, Keep, Phase, Ref, Term

    model = settings.model
    start = model_start(model, world, keep_exits=True)
    assert start.directory is not None
    teacher = trained_start(model, start.directory, world)
    if not model.first_layers:
        raise UserError(
            f"--model.first-layers: expected 1 to {teacher.network.num_layers}, the layers of {model.pretrained}, "
            "found 0"
        )
    logits, answers = Ref("model", "logits_BxKxN"), Ref("teacher", "logits_BxKxN")
    term = Term("kl", logits, answers, KL_LOSSES[settings.truncate.kl])
    cases = {COMPUTED: distillation_case(start.network, teacher.network, term)}
    phase = Phase("truncate", cases, Keep.BEST, settings.truncate)
    phases = (phase, *self_distillation(start.network, settings.distil))
    return Recipe({"model": start, "teacher": teacher}, phases, STORY)
