"""Properties of terms and cases: what is frozen, what is counted, what a term sees."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastbert_jax.config import KLDirection
from fastbert_jax.training import losses
from fastbert_jax.training.recipe import forward
from fastbert_jax.training.terms import (
    COMPUTED,
    Case,
    Ref,
    Term,
    case_loss,
    counts_of,
    merge,
    split,
)
from tests.training import tiny

STEP, KEY = jnp.zeros((), jnp.int32), jax.random.key(0)


def _loss(phase, params, batch, key=KEY, step=STEP):
    """The loss and each term's part."""
    case, views = phase.cases[COMPUTED], {"batch": batch}
    trained, frozen = split(params, case.trains)

    def run(trained, frozen, views, key):
        return case_loss(trained, frozen, case, views, counts_of(case, views), step=step, key=key)

    loss, (terms, _) = jax.jit(run)(trained, frozen, views, key)
    return loss, terms


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
    expected, _ = _loss(phase, params, alone)
    for padded in (batch, garbage):
        np.testing.assert_allclose(_loss(phase, params, padded)[0], expected, rtol=1e-6)


@pytest.mark.parametrize("kl", KLDirection)
def test_distillation_is_the_sum_of_one_kl_per_lower_exit(kl):
    """Equation 6 of the paper, with the divergence of its equation 5 or that of the released code."""
    phase, params, batch = tiny.recipe(dropout=0.0, kl=kl).phases[1], tiny.params(), tiny.batch()
    loss, terms = _loss(phase, params, batch)
    trace = jax.jit(tiny.model(0.0).trace)(params["model"], batch)
    expected = [losses.KL_LOSSES[kl](s, trace.logits_BxKxN).mean() for s in trace.lower_logits_LxBxKxN]
    np.testing.assert_allclose(terms["kl"], expected, rtol=1e-5)
    np.testing.assert_allclose(loss, sum(expected), rtol=1e-5)


def test_both_kl_directions_are_a_choice():
    params, batch = tiny.params(3), tiny.batch()
    values = {kl: float(_loss(tiny.recipe(dropout=0.0, kl=kl).phases[1], params, batch)[0]) for kl in KLDirection}
    assert values[KLDirection.STUDENT_TEACHER] != pytest.approx(values[KLDirection.TEACHER_STUDENT], rel=1e-3)


def _gradient_norms(phase, params, batch):
    """Norm of the loss's gradient for each part of the model, as if nothing were frozen."""
    case, views = phase.cases[COMPUTED], {"batch": batch}
    counts = counts_of(case, views)
    gradient = jax.jit(jax.grad(lambda whole: case_loss(whole, {}, case, views, counts, step=STEP, key=KEY)[0]))(params)
    return {
        part: float(sum(jnp.abs(leaf).sum() for leaf in jax.tree.leaves(tree)))
        for part, tree in gradient["model"].items()
    }


def test_the_target_gets_no_gradient():
    norms = _gradient_norms(tiny.recipe().phases[1], tiny.params(), tiny.batch())
    assert norms["last_exit"] == 0 and norms["lower_exits"] > 0


def test_fine_tuning_gives_lower_exits_no_gradient():
    norms = _gradient_norms(tiny.recipe().phases[0], tiny.params(), tiny.batch())
    assert norms["lower_exits"] == 0 and norms["last_exit"] > 0 and norms["backbone"] > 0


@pytest.mark.parametrize(("noisy", "phase_index", "varies"), [(False, 0, True), (False, 1, False), (True, 1, True)])
def test_dropout_acts_only_where_a_phase_asks(noisy, phase_index, varies):
    phase, views = tiny.recipe(dropout=0.5, noisy_teacher=noisy).phases[phase_index], {"batch": tiny.batch()}
    source, params = phase.cases[COMPUTED].sources["model"], tiny.params()["model"]
    first, second = (jax.jit(source)(params, views, jax.random.key(seed)).logits_BxKxN for seed in (1, 2))
    assert bool((first != second).any()) is varies


def test_lower_exits_take_dropout_in_distillation():
    phase, batch = tiny.recipe(dropout=0.5).phases[1], tiny.batch()
    first, second = (_loss(phase, tiny.params(), batch, jax.random.key(seed))[0] for seed in (1, 2))
    assert first != second


def test_a_weight_may_depend_on_the_step():
    phase, params, batch = tiny.recipe(dropout=0.0).phases[1], tiny.params(), tiny.batch()
    case = phase.cases[COMPUTED]
    ramp = dataclasses.replace(case, terms=(dataclasses.replace(case.terms[0], weight=lambda step: step / 4),))
    full, _ = _loss(phase, params, batch)
    half, _ = _loss(dataclasses.replace(phase, cases={COMPUTED: ramp}), params, batch, step=jnp.int32(2))
    np.testing.assert_allclose(half, full / 2, rtol=1e-6)


class Vectors(NamedTuple):
    vectors_LxBxSxH: jax.Array


def _token_term(index=None):
    return Term("hidden", Ref("a", "vectors_LxBxSxH", index), Ref("b", "vectors_LxBxSxH", index), losses.squared_error,
                over=Ref("batch", "text_BxS"))  # fmt: skip


def _token_traces(batch, seed=0):
    shape = (4, *batch.text_BxS.shape, 5)
    a, b = (jax.random.normal(jax.random.key(seed + number), shape) for number in (0, 1))
    return {"batch": batch, "a": Vectors(a), "b": Vectors(b)}


def test_a_term_over_tokens_counts_tokens_and_no_padding():
    batch = tiny.batch(rows=8, valid=6)
    traces, term = _token_traces(batch), _token_term()
    real = batch.text_BxS > 0
    difference = np.asarray(traces["a"].vectors_LxBxSxH - traces["b"].vectors_LxBxSxH)
    expected_L = np.square(difference).sum(-1)[:, real].sum(-1)
    np.testing.assert_allclose(term.sums(traces), expected_L, rtol=1e-5)
    assert int(term.count(traces)) == real.sum() < real.size


def test_an_index_picks_layers():
    traces = _token_traces(tiny.batch())
    np.testing.assert_allclose(
        _token_term((1, 3)).sums(traces), _token_term().sums(traces)[np.array([1, 3])], rtol=1e-6
    )


def test_garbage_behind_the_mask_changes_no_loss_and_no_gradient():
    batch = tiny.batch(rows=8, valid=6)
    traces, term = _token_traces(batch), _token_term()
    padding = (batch.text_BxS == 0)[None, :, :, None]

    def loss(vectors):
        return term.sums(traces | {"a": Vectors(vectors)}).sum()

    clean = traces["a"].vectors_LxBxSxH
    for garbage in (1e6, np.inf, np.nan):
        dirty = jnp.where(padding, garbage, clean)
        assert loss(dirty) == loss(clean)
        gradient = jax.grad(loss)(jnp.where(padding, 1e6, clean))
        assert np.isfinite(gradient).all() and not np.any(np.where(padding, gradient, 0))


def test_nothing_that_counts_is_a_loss_of_0_with_finite_gradients():
    batch = tiny.batch(valid=0)
    for phase in tiny.recipe(dropout=0.0).phases:
        loss, _ = _loss(phase, tiny.params(), batch)
        assert loss == 0
        assert all(np.isfinite(norm) for norm in _gradient_norms(phase, tiny.params(), batch).values())


def test_a_term_whose_loss_has_other_axes_than_what_it_counts_is_refused():
    traces = _token_traces(tiny.batch())
    wrong = dataclasses.replace(_token_term(), over=Ref("batch", "valid_BxK"))
    with pytest.raises(ValueError, match=r"term hidden: expected a loss of shape \[\.\.\., 8, 1\]"):
        wrong.sums(traces)


def test_a_source_without_parameters_sees_the_traces_before_it():
    """The mean of two networks' logits, an ensemble, teaches a third."""

    class Mean(NamedTuple):
        logits_BxKxN: jax.Array

    def mean(params, traces, key):
        assert params == {}
        return Mean((traces["first"].logits_BxKxN + traces["second"].logits_BxKxN) / 2)

    network = tiny.model(0.0)
    run = forward(network)
    case = Case(
        sources={"first": run, "second": run, "mean": mean, "model": run},
        terms=(Term("kl", Ref("model", "logits_BxKxN"), Ref("mean", "logits_BxKxN"), losses.kl_teacher_student),),
        trains={"model/last_exit": 1.0},
        row_flops=lambda length, texts: 0.0,
    )
    params = {name: tiny.params(seed)["model"] for seed, name in enumerate(("first", "second", "model"))}
    trained, frozen = split(params, case.trains)
    views = {"batch": tiny.batch()}

    def loss(trained, frozen):
        return case_loss(trained, frozen, case, views, counts_of(case, views), step=STEP, key=KEY)[0]

    value, gradients = jax.jit(jax.value_and_grad(loss))(trained, frozen)
    traced = {name: jax.jit(network.trace)(tree, views["batch"]).logits_BxKxN for name, tree in params.items()}
    target = (traced["first"] + traced["second"]) / 2
    np.testing.assert_allclose(value, losses.kl_teacher_student(traced["model"], target).mean(), rtol=1e-5)
    assert set(gradients) == {"model"}
