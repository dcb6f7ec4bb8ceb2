"""Properties of one step: parts add up, frozen stays frozen, a case moves its own paths alone, nothing recompiles."""

import dataclasses
import functools
import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastbert_jax.config import DistilConfig, FineTuneConfig, PhaseConfig
from fastbert_jax.model.bert import Bert
from fastbert_jax.training.losses import cross_entropy
from fastbert_jax.training.recipe import forward
from fastbert_jax.training.step import Optimizer, init_state, train_step
from fastbert_jax.training.terms import (
    COMPUTED,
    KEPT,
    Case,
    Keep,
    Kept,
    Phase,
    Ref,
    Term,
    case_loss,
    counts_of,
    merge,
    split,
)
from tests.training import tiny

KEY = jax.random.key(0)


def _step(phase, kind=COMPUTED):
    optimizer = Optimizer(phase.settings, 60)
    settings = {"optimizer": optimizer, "accumulate": phase.settings.accumulate, "key": KEY}
    return jax.jit(functools.partial(train_step, case=phase.cases[kind], **settings))


def _start(phase, params):
    trained, frozen = split(params, phase.trains)
    return init_state(trained, Optimizer(phase.settings, 60), phase), frozen


def views(**settings):
    return {"batch": tiny.batch(**settings)}


@pytest.mark.parametrize(("phase_index", "trains"), [(0, {"backbone", "last_exit"}), (1, {"lower_exits"})])
def test_frozen_parts_are_bit_identical_after_ten_steps(phase_index, trains):
    phase = tiny.recipe(learning_rate=0.01, weight_decay=0.1, warmup=0.0).phases[phase_index]
    before = tiny.params()
    state, frozen = _start(phase, before)
    step = _step(phase)
    for index in range(10):
        state, _ = step(state, frozen, views(seed=index))
    after = merge(state.trained, frozen)
    for part in ("backbone", "lower_exits", "last_exit"):
        same = jax.tree.map(lambda a, b: bool((a == b).all()), before["model"][part], after["model"][part])
        assert all(jax.tree.leaves(same)) is (part not in trains), part


@pytest.mark.parametrize("phase_index", [0, 1])
@pytest.mark.parametrize("valid", [pytest.param(8, marks=pytest.mark.slow), 5, pytest.param(1, marks=pytest.mark.slow)])
def test_accumulated_parts_with_unequal_texts_equal_the_whole_batch(phase_index, valid):
    # Parts of 2 rows hold 2, 2, 1 and 0 valid texts when 5 of 8 rows are: a mean of means would differ.
    results = []
    for accumulate in (1, 4):
        phase = tiny.recipe(dropout=0.0, batch_size=8, accumulate=accumulate, warmup=0.0).phases[phase_index]
        state, frozen = _start(phase, tiny.params())
        results.append(_step(phase)(state, frozen, views(rows=8, valid=valid)))
    (whole_state, whole), (parts_state, parts) = results
    np.testing.assert_allclose(parts.loss, whole.loss, rtol=1e-5)
    np.testing.assert_allclose(parts.gradient_norm, whole.gradient_norm, rtol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
        jax.tree.leaves(whole_state.opt_state),
        jax.tree.leaves(parts_state.opt_state),
    )


@pytest.mark.parametrize("accumulate", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_a_step_on_kept_values_has_the_loss_of_the_step_that_handed_them_out(accumulate):
    settings = {"batch_size": 8, "accumulate": accumulate, "cache_teacher": True}
    phase = tiny.recipe(dropout=0.1, **settings).phases[1]
    state, frozen = _start(phase, tiny.params())
    batch = tiny.batch(rows=8, valid=5)
    after, computed = _step(phase)(state, frozen, {"batch": batch})
    trace = jax.jit(tiny.model(0.0).trace)(tiny.params()["model"], batch)
    np.testing.assert_allclose(computed.kept_BxKxN, trace.logits_BxKxN, rtol=1e-5, atol=1e-6)
    kept_views = {"batch": batch, "kept": Kept(np.asarray(computed.kept_BxKxN))}
    after_kept, kept = _step(phase, KEPT)(state, frozen, kept_views)
    assert kept.kept_BxKxN is None
    np.testing.assert_allclose(kept.loss, computed.loss, rtol=1e-5)
    np.testing.assert_allclose(kept.gradient_norm, computed.gradient_norm, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), after_kept.trained, after.trained)


@pytest.mark.slow
def test_a_step_on_kept_values_runs_a_layer_less_and_copies_none():
    network = Bert(dataclasses.replace(tiny.CONFIG, num_layers=11, exit_layers=()))
    phase = tiny.fastbert(network, fine_tune=FineTuneConfig(), distil=DistilConfig(cache_teacher=True)).phases[1]
    state, frozen = _start(phase, {"model": network.init(KEY)})
    turns, width = {}, f"{network.hidden_size},{network.config.feed_forward_size}"
    kept = {"kept": Kept(np.zeros((8, 1, 2), np.float32))}
    for kind, extra in ((COMPUTED, {}), (KEPT, kept)):
        program = _step(phase, kind).lower(state, frozen, views(rows=8) | extra).compile().as_text()
        turns[kind] = Counter(map(int, re.findall(r'"known_trip_count":\{"n":"(\d+)"\}', program)))
        assert f"f32[11,{width}]" in program
        assert f"f32[10,{width}]" not in program
    assert turns[COMPUTED] - turns[KEPT] == {11: 1} and turns[KEPT] - turns[COMPUTED] == {10: 1}


def test_a_batch_of_no_texts_changes_no_moment():
    phase = tiny.recipe(dropout=0.0, weight_decay=0.0, warmup=0.0).phases[0]
    state, frozen = _start(phase, tiny.params())
    after, metrics = _step(phase)(state, frozen, views(valid=0))
    assert metrics.loss == 0 and metrics.gradient_norm == 0
    jax.tree.map(np.testing.assert_array_equal, after.trained, state.trained)


def test_one_program_serves_all_steps():
    phase = tiny.recipe(dropout=0.1).phases[0]
    state, frozen = _start(phase, tiny.params())
    step = _step(phase)
    for index in range(3):
        state, _ = step(state, frozen, views(seed=index))
    assert step._cache_size() == 1


def test_dropout_is_a_function_of_seed_and_step_alone():
    phase = tiny.recipe(dropout=0.5).phases[0]
    state, frozen = _start(phase, tiny.params())
    later = state._replace(step=jnp.int32(1))
    step = _step(phase)
    losses = [float(step(each, frozen, views())[1].loss) for each in (state, state, later)]
    assert losses[0] == losses[1] != losses[2]


def test_learning_happens():
    phase = tiny.recipe(dropout=0.0, learning_rate=0.02, warmup=0.0).phases[0]
    state, frozen = _start(phase, tiny.params())
    step, batch = _step(phase), views(rows=16)
    losses = []
    for _ in range(60):
        state, metrics = step(state, frozen, batch)
        losses.append(float(metrics.loss))
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.slow
def test_computing_layers_again_in_the_backward_pass_changes_no_gradient():
    def gradients(remat: bool):
        network = Bert(tiny.CONFIG, dropout=0.1, remat=remat)
        phase = tiny.fastbert(network, fine_tune=FineTuneConfig(), distil=DistilConfig()).phases[0]
        trained, frozen = split(tiny.params(), phase.trains)
        case = phase.cases[COMPUTED]
        loss = functools.partial(case_loss, case=case, views=views(), counts=counts_of(case, views()))
        return jax.jit(jax.grad(functools.partial(loss, step=jnp.int32(0), key=KEY), has_aux=True))(trained, frozen)[0]

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), gradients(False), gradients(True))


def two_tasks(classes=(2, 3)):
    """A backbone that two tasks share, each with a head of its own: two kinds of batches, two cases."""
    networks = {
        name: Bert(dataclasses.replace(tiny.CONFIG, num_classes=number, exit_layers=(3,)), dropout=0.1)
        for name, number in zip(("first", "second"), classes, strict=True)
    }

    def head(name):
        run = forward(networks[name])

        def source(params, traces, key):
            return run({"backbone": params["backbone"], "last_exit": params[name]}, traces, key)

        return source

    def case(name):
        return Case(
            sources={"model": head(name)},
            terms=(Term("label", Ref("model", "logits_BxKxN"), Ref("batch", "label_BxK"), cross_entropy),),
            trains={"model/backbone": 1.0, f"model/{name}": 1.0},
            row_flops=lambda length, texts: 0.0,
        )

    settings = PhaseConfig(learning_rate=0.01, weight_decay=0.1, warmup=0.0)
    phase = Phase("tasks", {name: case(name) for name in networks}, Keep.LAST, settings)
    made = {name: network.init(jax.random.key(number)) for number, (name, network) in enumerate(networks.items())}
    params = {"backbone": made["first"]["backbone"]} | {name: made[name]["last_exit"] for name in networks}
    return phase, {"model": params}


def test_a_head_whose_task_has_no_batch_does_not_move_by_one_bit():
    phase, before = two_tasks()
    state, frozen = _start(phase, before)
    steps = {kind: _step(phase, kind) for kind in phase.cases}
    seen = []
    for number, kind in enumerate(["first", "first", "second", "first"]):
        state, metrics = steps[kind](state, frozen, views(seed=number))
        assert metrics.gradient_norm > 0
        seen.append((kind, state))
    last = before["model"], None
    for kind, after in seen:
        for name in ("backbone", "first", "second"):
            same = jax.tree.map(lambda a, b: bool((a == b).all()), last[0][name], after.trained["model"][name])
            assert all(jax.tree.leaves(same)) is (name not in ("backbone", kind)), (kind, name)
        resting = "second" if kind == "first" else "first"
        if last[1] is not None:  # not its moments either, nor its count of steps
            key = f"model.{resting}"
            jax.tree.map(np.testing.assert_array_equal, last[1].opt_state[key], after.opt_state[key])
        last = after.trained["model"], after
