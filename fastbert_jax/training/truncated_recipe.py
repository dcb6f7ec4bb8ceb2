"""The truncated recipe: the first layers of a trained model learn its answers, a BERT of fixed depth.

The baselines of the FastBERT paper's Table 2 are such models of 6, 3 and 1 layers (there after DistilBERT, Sanh et al.
2019). This one begins with the trained model's own first layers and the exit after them, and its loss is the answers'
KL alone, without labels; then it teaches its own students, so that it can leave early too.
"""

from __future__ import annotations

import functools

from fastbert_jax.config import DistilConfig, TruncateConfig
from fastbert_jax.model.fastbert import FastBert
from fastbert_jax.report.flops import truncation_flops
from fastbert_jax.training.fastbert_recipe import KL, forward, self_distillation
from fastbert_jax.training.recipe import Keep, Phase, Recipe, Ref, Stream, Term


def truncated_recipe(model: FastBert, teacher: FastBert, *, truncate: TruncateConfig, distil: DistilConfig) -> Recipe:
    """The two phases on `{"model": parameters, "teacher": parameters}`; the second as in FastBERT.

    Args:
      teacher: deterministic and frozen; its last exit's answers are the targets.
    """
    phase = Phase(
        name="truncate",
        sources={
            "model": forward(model, noisy=frozenset({"backbone", "last_exit"})),
            "teacher": forward(teacher, noisy=frozenset()),
        },
        terms=(Term("kl", Ref("model", "logits_BxKxN"), Ref("teacher", "logits_BxKxN"), loss=KL[truncate.kl]),),
        trainable={"model/backbone": 1.0, "model/last_exit": 1.0},
        stream=Stream.UNLABELLED,
        keep=Keep.BEST,
        settings=truncate,
        row_flops=functools.partial(truncation_flops, model.config, teacher=teacher.config),
    )
    return Recipe(phases=(phase, *self_distillation(model, distil)))
