"""Properties of the training core: what is frozen, what is counted, what a term sees."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastbert_jax.config import DistilConfig, FineTuneConfig, KLDirection, RecipeName, TrainConfig, TruncateConfig
from fastbert_jax.model.fastbert import FastBert, init_params
from fastbert_jax.training import losses
from fastbert_jax.training.fastbert_recipe import fastbert_recipe, joint_recipe
from fastbert_jax.training.prepare import recipe_of
from fastbert_jax.training.recipe import loss_sums, merge, split
from fastbert_jax.training.truncated_recipe import truncated_recipe
from tests.training import tiny

STEP, KEY = jnp.zeros((), jnp.int32), jax.random.key(0)


def _sums(phase, params, batch, key=KEY):
    trained, frozen = split(params, phase.trainable)
    total, shown = jax.jit(lambda t, f, b, k: loss_sums(t, f, phase, b, step=STEP, key=k))(trained, frozen, batch, key)
    return total, shown.sums


def test_split_and_merge_are_inverse_and_keep_every_leaf():
    params = tiny.params()
    trained, frozen = split(params, ("model/lower_exits",))
    assert set(trained["model"]) == {"lower_exits"} and set(frozen["model"]) == {"backbone", "last_exit"}
    jax.tree.map(np.testing.assert_array_equal, merge(trained, frozen), params)


def test_split_refuses_a_path_that_leads_nowhere():
    with pytest.raises(ValueError, match=r"expected a path of \['model'\], found 'model/student'"):
        split(tiny.params(), ("model/student",))


@pytest.mark.parametrize("phase_index", [0, 1])
def test_padding_rows_add_nothing_whatever_they_hold(phase_index):
    phase, params = tiny.recipe(dropout=0.0).phases[phase_index], tiny.params()
    batch = tiny.batch(rows=8, valid=5)
    garbage = batch._replace(
        token_ids_BxS=np.where(batch.valid_BxK, batch.token_ids_BxS, 7).astype(np.int32),
        label_BxK=np.where(batch.valid_BxK, batch.label_BxK, 1).astype(np.int32),
    )
    alone = jax.tree.map(lambda array: array[:5], batch)
    expected, _ = _sums(phase, params, alone)
    for padded in (batch, garbage):
        np.testing.assert_allclose(_sums(phase, params, padded)[0], expected, rtol=1e-6)


def test_distillation_is_the_sum_of_one_kl_per_student():
    phase, params, batch = tiny.recipe(dropout=0.0).phases[1], tiny.params(), tiny.batch()
    total, terms = _sums(phase, params, batch)
    trace = jax.jit(phase.sources["model"])(params["model"], batch, KEY)
    expected = [losses.kl_student_teacher(s, trace.logits_BxKxN).sum() for s in trace.lower_logits_LxBxKxN]
    np.testing.assert_allclose(terms["kl"], expected, rtol=1e-5)
    np.testing.assert_allclose(total, sum(expected), rtol=1e-5)


def test_both_kl_directions_are_a_choice():
    params, batch = tiny.params(3), tiny.batch()
    values = {kl: float(_sums(tiny.recipe(dropout=0.0, kl=kl).phases[1], params, batch)[0]) for kl in KLDirection}
    assert values[KLDirection.STUDENT_TEACHER] != pytest.approx(values[KLDirection.TEACHER_STUDENT], rel=1e-3)


def _gradient_norms(phase, params, batch):
    """Norm of the loss's gradient for each part of the model, as if nothing were frozen."""
    gradient = jax.jit(jax.grad(lambda whole: loss_sums(whole, {}, phase, batch, step=STEP, key=KEY)[0]))(params)
    return {
        part: float(sum(jnp.abs(leaf).sum() for leaf in jax.tree.leaves(tree)))
        for part, tree in gradient["model"].items()
    }


def test_the_target_gets_no_gradient():
    norms = _gradient_norms(tiny.recipe().phases[1], tiny.params(), tiny.batch())
    assert norms["last_exit"] == 0 and norms["lower_exits"] > 0


def test_fine_tuning_gives_students_no_gradient():
    norms = _gradient_norms(tiny.recipe().phases[0], tiny.params(), tiny.batch())
    assert norms["lower_exits"] == 0 and norms["last_exit"] > 0 and norms["backbone"] > 0


def _teacher_logits(phase, params, batch, seed):
    return jax.jit(phase.sources["model"])(params["model"], batch, jax.random.key(seed)).logits_BxKxN


@pytest.mark.parametrize(("noisy", "phase_index", "varies"), [(False, 0, True), (False, 1, False), (True, 1, True)])
def test_dropout_acts_only_where_a_phase_asks(noisy, phase_index, varies):
    phase, batch = tiny.recipe(dropout=0.5, noisy_teacher=noisy).phases[phase_index], tiny.batch()
    first, second = (_teacher_logits(phase, tiny.params(), batch, seed) for seed in (1, 2))
    assert bool((first != second).any()) is varies


def test_students_take_dropout_in_distillation():
    phase, batch = tiny.recipe(dropout=0.5).phases[1], tiny.batch()
    first, second = (_sums(phase, tiny.params(), batch, jax.random.key(seed))[0] for seed in (1, 2))
    assert first != second


def test_a_weight_may_depend_on_the_step():
    phase, params, batch = tiny.recipe(dropout=0.0).phases[1], tiny.params(), tiny.batch()
    ramp = dataclasses.replace(phase, terms=(dataclasses.replace(phase.terms[0], weight=lambda step: step / 4),))
    trained, frozen = split(params, phase.trainable)
    full, _ = _sums(phase, params, batch)
    half, _ = jax.jit(lambda t, f: loss_sums(t, f, ramp, batch, step=jnp.int32(2), key=KEY))(trained, frozen)
    np.testing.assert_allclose(half, full / 2, rtol=1e-6)


def test_the_joint_recipe_teaches_every_exit_the_labels_and_freezes_nothing():
    (phase,) = joint_recipe(tiny.model(0.0), fine_tune=FineTuneConfig()).phases
    params, batch = tiny.params(), tiny.batch(valid=6)
    assert split(params, phase.trainable)[1] == {}
    total, terms = _sums(phase, params, batch)
    trace = jax.jit(phase.sources["model"])(params["model"], batch, KEY)
    log_LxBxN = jax.nn.log_softmax(trace.exit_logits_LxBxKxN[:6, :6, 0])
    expected_L = -np.take_along_axis(np.asarray(log_LxBxN), batch.label_BxK[None, :6], axis=-1).sum((1, 2))
    np.testing.assert_allclose([*terms["lower_exits"], terms["label"]], expected_L, rtol=1e-5)
    np.testing.assert_allclose(total, expected_L.sum(), rtol=1e-5)
    assert phase.row_flops(10) > tiny.recipe().phases[0].row_flops(10)


def test_the_truncated_recipe_teaches_the_last_exit_by_a_teacher_that_stays_as_it_is():
    config = dataclasses.replace(tiny.CONFIG, num_layers=2)
    recipe = truncated_recipe(FastBert(config), tiny.model(0.5), truncate=TruncateConfig(), distil=DistilConfig())
    assert [phase.name for phase in recipe.phases] == ["truncate", "distil"]
    assert [recipe.sources_from(index) for index in (0, 1)] == [["model", "teacher"], ["model"]]
    phase, batch = recipe.phases[0], tiny.batch(valid=6)
    params = {"model": init_params(config, jax.random.key(1)), "teacher": tiny.params()["model"]}
    trained, frozen = split(params, phase.trainable)
    assert set(trained) == {"model"} and set(trained["model"]) == {"backbone", "last_exit"} and "teacher" in frozen
    total, _ = _sums(phase, params, batch)
    student, teacher = (
        jax.jit(phase.sources[name])(params[name], batch, KEY).logits_BxKxN for name in ("model", "teacher")
    )
    np.testing.assert_allclose(total, losses.kl_teacher_student(student, teacher)[:6].sum(), rtol=1e-5)
    gradient = jax.jit(jax.grad(lambda p: loss_sums(p, {}, phase, batch, step=STEP, key=KEY)[0]))(params)
    assert not any(jnp.any(leaf) for leaf in jax.tree.leaves(gradient["teacher"]))


def test_a_model_of_one_layer_has_no_students_to_teach():
    model = FastBert(dataclasses.replace(tiny.CONFIG, num_layers=1))
    recipe = fastbert_recipe(model, fine_tune=FineTuneConfig(), distil=DistilConfig())
    assert [phase.name for phase in recipe.phases] == ["fine_tune"]


def test_a_run_names_its_recipe():
    models = {"model": tiny.model(), "teacher": tiny.model()}
    phases = {name: recipe_of(TrainConfig(recipe=name).resolved, models).phases for name in RecipeName}
    assert [len(phases[name]) for name in RecipeName] == [2, 2, 1, 2]
    assert phases[RecipeName.OFFICIAL][1].terms[0].loss is losses.kl_teacher_student
    assert phases[RecipeName.FASTBERT][1].terms[0].loss is losses.kl_student_teacher
