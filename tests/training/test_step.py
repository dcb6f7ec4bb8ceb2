"""Properties of one step: parts add up, frozen stays frozen, nothing recompiles."""

import dataclasses
import functools
import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastbert_jax.config import DistilConfig, FineTuneConfig
from fastbert_jax.model.fastbert import FastBert, init_params
from fastbert_jax.training.fastbert_recipe import fastbert_recipe
from fastbert_jax.training.optimizer import make_optimizer
from fastbert_jax.training.recipe import Known, loss_sums, merge, split
from fastbert_jax.training.step import init_state, train_step
from tests.training import tiny

KEY = jax.random.key(0)


def _plain_step(phase):
    return functools.partial(train_step, phase=phase, optimizer=make_optimizer(phase.settings, total_steps=60), key=KEY)


def _step(phase):
    return jax.jit(_plain_step(phase))


def _start(phase, params):
    trained, frozen = split(params, phase.trainable)
    return init_state(trained, make_optimizer(phase.settings, total_steps=20)), frozen


@pytest.mark.parametrize(("phase_index", "trains"), [(0, {"backbone", "last_exit"}), (1, {"lower_exits"})])
def test_frozen_parts_are_bit_identical_after_ten_steps(phase_index, trains):
    phase = tiny.recipe(learning_rate=0.01, weight_decay=0.1, warmup=0.0).phases[phase_index]
    before = tiny.params()
    state, frozen = _start(phase, before)
    step = _step(phase)
    for index in range(10):
        state, _ = step(state, frozen, tiny.batch(seed=index))
    after = merge(state.trained, frozen)
    for part in ("backbone", "lower_exits", "last_exit"):
        same = jax.tree.map(lambda a, b: bool((a == b).all()), before["model"][part], after["model"][part])
        assert all(jax.tree.leaves(same)) is (part not in trains), part


@pytest.mark.parametrize("phase_index", [0, 1])
@pytest.mark.parametrize("valid", [8, 5, 1])
def test_accumulated_parts_with_unequal_texts_equal_the_whole_batch(phase_index, valid):
    # Parts of 2 rows hold 2, 2, 1 and 0 valid texts when 5 of 8 rows are: a mean of means would differ.
    batch = tiny.batch(rows=8, valid=valid)
    results = []
    for accumulate in (1, 4):
        phase = tiny.recipe(dropout=0.0, batch_size=8, accumulate=accumulate, warmup=0.0).phases[phase_index]
        state, frozen = _start(phase, tiny.params())
        results.append(_step(phase)(state, frozen, batch))
    (whole_state, whole), (parts_state, parts) = results
    np.testing.assert_allclose(parts.loss, whole.loss, rtol=1e-5)
    np.testing.assert_allclose(parts.gradient_norm, whole.gradient_norm, rtol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
        jax.tree.leaves(whole_state.opt_state),
        jax.tree.leaves(parts_state.opt_state),
    )


@pytest.mark.parametrize("accumulate", [1, 4])
def test_the_shortcut_gives_the_loss_of_the_whole_step_that_hands_out_what_it_needs(accumulate):
    settings = {"batch_size": 8, "accumulate": accumulate, "cache_teacher": True}
    phase = tiny.recipe(dropout=0.1, **settings).phases[1]
    state, frozen = _start(phase, tiny.params())
    batch, step = tiny.batch(rows=8, valid=5), _step(phase)
    after, whole = step(state, frozen, batch)
    trace = jax.jit(phase.sources["model"])(tiny.params()["model"], batch, KEY)
    np.testing.assert_allclose(whole.kept_BxKxN, trace.logits_BxKxN, rtol=1e-5, atol=1e-6)
    after_known, known = step(state, frozen, batch, Known(np.asarray(whole.kept_BxKxN)))
    assert known.kept_BxKxN is None
    np.testing.assert_allclose(known.loss, whole.loss, rtol=1e-5)
    np.testing.assert_allclose(known.gradient_norm, whole.gradient_norm, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), after_known.trained, after.trained)


def test_the_shortcut_runs_a_layer_less_and_copies_none():
    config = dataclasses.replace(tiny.CONFIG, num_layers=11)
    distil = DistilConfig(cache_teacher=True)
    phase = fastbert_recipe(FastBert(config), fine_tune=FineTuneConfig(), distil=distil).phases[1]
    state, frozen = _start(phase, {"model": init_params(config, KEY)})
    turns = {}
    for name, known in (("whole", None), ("shortcut", Known(np.zeros((8, 1, 2), np.float32)))):
        program = _step(phase).lower(state, frozen, tiny.batch(rows=8), known).compile().as_text()
        turns[name] = Counter(map(int, re.findall(r'"known_trip_count":\{"n":"(\d+)"\}', program)))
        assert f"f32[11,{config.hidden_size},{config.feed_forward_size}]" in program
        assert f"f32[10,{config.hidden_size},{config.feed_forward_size}]" not in program
    assert turns["whole"] - turns["shortcut"] == {11: 1} and turns["shortcut"] - turns["whole"] == {10: 1}


def test_what_is_known_needs_a_shortcut():
    phase = tiny.recipe().phases[1]
    with pytest.raises(ValueError, match="distil: expected a shortcut"):
        phase.on(Known(np.zeros((8, 1, 2), np.float32)))


def test_a_batch_of_no_texts_changes_no_moment():
    phase = tiny.recipe(dropout=0.0, weight_decay=0.0, warmup=0.0).phases[0]
    state, frozen = _start(phase, tiny.params())
    after, metrics = _step(phase)(state, frozen, tiny.batch(valid=0))
    assert metrics.loss == 0 and metrics.gradient_norm == 0
    jax.tree.map(np.testing.assert_array_equal, after.trained, state.trained)


def test_one_program_serves_all_steps():
    phase = tiny.recipe(dropout=0.1).phases[0]
    state, frozen = _start(phase, tiny.params())
    step = _step(phase)
    for index in range(3):
        state, _ = step(state, frozen, tiny.batch(seed=index))
    assert step._cache_size() == 1


def test_dropout_is_a_function_of_seed_and_step_alone():
    phase = tiny.recipe(dropout=0.5).phases[0]
    state, frozen = _start(phase, tiny.params())
    later = state._replace(step=jnp.int32(1))
    step = _step(phase)
    losses = [float(step(each, frozen, tiny.batch())[1].loss) for each in (state, state, later)]
    assert losses[0] == losses[1] != losses[2]


def test_learning_happens():
    phase = tiny.recipe(dropout=0.0, learning_rate=0.02, warmup=0.0).phases[0]
    state, frozen = _start(phase, tiny.params())
    step, batch = _step(phase), tiny.batch(rows=16)
    losses = []
    for _ in range(60):
        state, metrics = step(state, frozen, batch)
        losses.append(float(metrics.loss))
    assert losses[-1] < 0.2 * losses[0]


def test_computing_layers_again_in_the_backward_pass_changes_no_gradient():
    def gradients(remat: bool):
        model = FastBert(tiny.CONFIG, dropout=0.1, remat=remat)
        phase = fastbert_recipe(model, fine_tune=FineTuneConfig(), distil=DistilConfig()).phases[0]
        trained, frozen = split(tiny.params(), phase.trainable)
        loss = functools.partial(loss_sums, phase=phase, batch=tiny.batch(), step=jnp.int32(0), key=KEY)
        return jax.jit(jax.grad(loss, has_aux=True))(trained, frozen)[0]

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), gradients(False), gradients(True))
