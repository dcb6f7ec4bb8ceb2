"""The FastBERT recipe: fine-tune backbone and teacher on labels, then let the teacher teach the students.

Liu et al. 2020, section 3.2, with the released code's behaviour (other KL direction, noisy teacher) as settings; and
the ablation that trains all exits on labels.
"""

from __future__ import annotations

import dataclasses
import functools

import jax

from fastbert_jax.config import DistilConfig, FineTuneConfig, KLDirection
from fastbert_jax.model.fastbert import PARTS, FastBert, StudentsAlone, StudentsTrace, Trace
from fastbert_jax.report.flops import distillation_flops, fine_tuning_flops
from fastbert_jax.text.batches import Batch
from fastbert_jax.training import losses
from fastbert_jax.training.recipe import Apply, Keep, Phase, Recipe, Ref, Shortcut, Stream, Term, Tree

KL = {
    KLDirection.STUDENT_TEACHER: losses.kl_student_teacher,
    KLDirection.TEACHER_STUDENT: losses.kl_teacher_student,
}


def fastbert_recipe(model: FastBert, *, fine_tune: FineTuneConfig, distil: DistilConfig) -> Recipe:
    """The two phases on `{"model": parameters}`; a model of one layer has the first alone.

    In phase 2 the teacher is deterministic: dropout acts in the students alone, unless `distil.noisy_teacher`.
    """
    return Recipe(
        phases=(
            Phase(
                name="fine_tune",
                sources={"model": forward(model, noisy=frozenset({"backbone", "last_exit"}))},
                terms=(Term("label", Ref("model", "logits_BxKxN"), Ref("batch", "label_BxK"), losses.cross_entropy),),
                trainable={"model/backbone": 1.0, "model/last_exit": fine_tune.teacher_rate},
                stream=Stream.LABELLED,
                keep=Keep.BEST,
                settings=fine_tune,
                row_flops=functools.partial(fine_tuning_flops, model.config),
            ),
            *self_distillation(model, distil),
        ),
    )


def joint_recipe(model: FastBert, *, fine_tune: FineTuneConfig) -> Recipe:
    """Labels train everything at once: the paper's ablation *without self-distillation* (section 4.5, Table 3)."""
    label = Ref("batch", "label_BxK")
    phase = Phase(
        name="fine_tune",
        sources={"model": forward(model, noisy=frozenset(PARTS))},
        terms=(
            Term("label", Ref("model", "logits_BxKxN"), label, losses.cross_entropy),
            Term("lower_exits", Ref("model", "lower_logits_LxBxKxN"), label, losses.cross_entropy),
        ),
        trainable={"model/backbone": 1.0, "model/last_exit": fine_tune.teacher_rate, "model/lower_exits": 1.0},
        stream=Stream.LABELLED,
        keep=Keep.BEST,
        settings=fine_tune,
        row_flops=functools.partial(fine_tuning_flops, model.config, exits=model.config.num_layers),
    )
    return Recipe(phases=(phase,))


def self_distillation(model: FastBert, distil: DistilConfig) -> tuple[Phase, ...]:
    """The phase in which the teacher teaches the students; none for a model of one layer, which has no students."""
    if model.config.num_layers == 1:
        return ()
    students, noisy = Ref("model", "lower_logits_LxBxKxN"), frozenset({"lower_exits"})
    from_teacher = functools.partial(Term, "kl", students, loss=KL[distil.kl])
    teacher = Ref("model", "logits_BxKxN")
    phase = Phase(
        name="distil",
        sources={"model": forward(model, noisy=noisy | ({"backbone", "last_exit"} if distil.noisy_teacher else set()))},
        terms=(from_teacher(teacher),),
        trainable={"model/lower_exits": 1.0},
        stream=Stream.UNLABELLED,
        keep=Keep.LAST,
        settings=distil,
        row_flops=functools.partial(distillation_flops, model.config),
    )
    if not distil.cache_teacher:
        return (phase,)
    alone = StudentsAlone(model.config, dropout=model.dropout, dtype=model.dtype, unroll=model.unroll)
    known = dataclasses.replace(
        phase,
        sources={"model": forward(alone, noisy=noisy)},
        terms=(from_teacher(Ref("known", "answers_BxKxN")),),
        row_flops=functools.partial(distillation_flops, model.config, teacher_known=True),
    )
    return (dataclasses.replace(phase, shortcut=Shortcut(kept=teacher, phase=known)),)


def forward(model: FastBert | StudentsAlone, *, noisy: frozenset[str]) -> Apply:
    """The model as a source: parameters, batch and dropout key in, its trace out."""

    def apply(params: Tree, batch: Batch, key: jax.Array | None) -> Trace | StudentsTrace:
        return model.apply(
            {"params": params},
            batch.token_ids_BxS,
            batch.token_type_BxS,
            batch.position_BxS,
            batch.text_BxS,
            batch.cls_BxK,
            noisy=noisy,
            rngs=None if key is None else {"dropout": key},
        )

    return apply
