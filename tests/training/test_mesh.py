"""Properties of training on a mesh: every mesh trains the same model, and moves no more than it must."""

import functools

import jax
import numpy as np
import pytest

from compiled_text import CompiledText
from fastbert_jax.config import BertConfig, DistilConfig, FineTuneConfig, MeshConfig
from fastbert_jax.model.bert import Bert
from fastbert_jax.model.sharding import make_mesh, sharding_of, share_batch
from fastbert_jax.training.recipe import Start
from fastbert_jax.training.step import PlacedStep
from fastbert_jax.training.terms import COMPUTED, KEPT, Kept
from tests.training import tiny

MESHES = {"one device": (1, 1, 1), "data": (8, 1, 1), "fsdp": (1, 8, 1), "all three": (2, 2, 2)}
STEPS = 3


def _config(feed_forward_size: int = 32) -> BertConfig:
    return BertConfig(
        vocab_size=30,
        hidden_size=16,
        num_layers=3,
        num_heads=2,
        feed_forward_size=feed_forward_size,
        max_positions=16,
        exit_size=8,
    )


def _mesh(sizes):
    data, fsdp, tensor = sizes
    return make_mesh(MeshConfig(data=data, fsdp=fsdp, tensor=tensor), jax.devices()[: data * fsdp * tensor])


def _phase(config: BertConfig, index: int, *, cache_teacher: bool = False, **settings):
    recipe = tiny.fastbert(
        Bert(config, dropout=0.1),
        fine_tune=FineTuneConfig(batch_size=16, learning_rate=1e-3, **settings),
        distil=DistilConfig(batch_size=16, learning_rate=1e-3, cache_teacher=cache_teacher),
    )
    return recipe.phases[index]


def _step(phase, mesh, config):
    shapes = {"model": _abstract_params(config, mesh)}
    return PlacedStep(phase, shapes, mesh=mesh, total_steps=10, key=jax.random.key(7))


def _abstract_params(config, mesh):
    return Start(Bert(config)).abstract_params(mesh)


def _params(config, mesh):
    return Start(Bert(config)).params(seed=0, mesh=mesh)


def _train(sizes, index, **settings):
    config, mesh = _config(), _mesh(sizes)
    placed = _step(_phase(config, index, **settings), mesh, config)
    state, frozen = placed.begin({"model": _params(config, mesh)})
    losses = []
    with jax.set_mesh(mesh):
        for number in range(STEPS):
            batch = tiny.batch(rows=16, seed=number, valid=13)
            state, metrics = placed.steps[COMPUTED](state, frozen, share_batch(mesh, {"batch": batch}, 16))
            losses.append(float(metrics.loss))
    assert metrics.texts == 13
    return losses, jax.device_get(state.trained)


@functools.cache
def _on_one_device(index, accumulate):
    return _train(MESHES["one device"], index, **({"accumulate": accumulate} if accumulate > 1 else {}))


@pytest.mark.parametrize(
    ("mesh", "index", "accumulate"),
    [
        pytest.param("data", 0, 2, marks=pytest.mark.slow),
        pytest.param("fsdp", 0, 1, marks=pytest.mark.slow),
        pytest.param("all three", 0, 2, marks=pytest.mark.slow),
        ("all three", 1, 1),
    ],
)
def test_every_mesh_trains_the_same_model(mesh, index, accumulate):
    losses, trained = _train(MESHES[mesh], index, **({"accumulate": accumulate} if accumulate > 1 else {}))
    expected_losses, expected = _on_one_device(index, accumulate)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    # Adam's first steps are as large as the rate, whatever the gradient: where that is near 0, rounding decides.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), trained, expected)


@pytest.mark.slow
def test_kept_values_train_the_same_model_on_another_mesh():
    batch, kept = tiny.batch(rows=16, valid=13), {}
    results = {}
    for name in ("one device", "all three"):
        config, mesh = _config(), _mesh(MESHES[name])
        placed = _step(_phase(config, 1, cache_teacher=True), mesh, config)
        state, frozen = placed.begin({"model": _params(config, mesh)})
        with jax.set_mesh(mesh):
            state, metrics = placed.steps[COMPUTED](state, frozen, share_batch(mesh, {"batch": batch}, 16))
            kept[name] = metrics.kept_BxKxN
            assert kept[name].is_fully_replicated
            views = {"batch": batch, "kept": Kept(np.asarray(kept["one device"]))}
            state, metrics = placed.steps[KEPT](state, frozen, share_batch(mesh, views, 16))
        results[name] = float(metrics.loss), jax.device_get(state.trained)
    np.testing.assert_allclose(kept["all three"], kept["one device"], rtol=1e-4, atol=1e-5)
    (expected_loss, expected), (loss, trained) = results.values()
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), trained, expected)


def test_initial_parameters_are_the_same_on_every_mesh():
    one, all_three = (
        jax.device_get(_params(_config(), _mesh(sizes))) for sizes in (MESHES["one device"], MESHES["all three"])
    )
    jax.tree.map(np.testing.assert_array_equal, one, all_three)


def _collectives(index: int, *, rows: int, feed_forward_size: int = 32) -> list[tuple[str, int]]:
    """The collectives of a compiled data-parallel step: kind, and bytes that it moves."""
    config, mesh = _config(feed_forward_size), _mesh(MESHES["data"])
    placed = _step(_phase(config, index), mesh, config)
    rows_of = sharding_of(mesh, ("batch",))
    batch = jax.tree.map(
        lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=rows_of), tiny.batch(rows=rows)
    )
    with jax.set_mesh(mesh):
        text = placed.steps[COMPUTED].lower(placed.state, placed.frozen, {"batch": batch}).compile().as_text()
    return [(one.kind, one.bytes * one.times) for one in CompiledText(text).collectives]


def test_distillation_moves_the_exits_gradients_alone_whatever_the_backbone_and_the_batch():
    shapes = _abstract_params(_config(), _mesh(MESHES["data"]))
    gradients = 4 * sum(leaf.size for leaf in jax.tree.leaves(shapes["lower_exits"]))
    moved = {}
    for rows, inner in ((16, 32), (64, 32), (16, 64)):
        found = _collectives(1, rows=rows, feed_forward_size=inner)
        assert {kind for kind, _ in found} == {"all-reduce"}, found
        moved[rows, inner] = sum(size for _, size in found)
    assert len(set(moved.values())) == 1, moved
    assert gradients <= moved[16, 32] <= gradients + 64  # the rest: loss, terms, counts


@pytest.mark.slow
def test_fine_tuning_does_move_the_backbones_gradients():
    small, large = (sum(size for _, size in _collectives(0, rows=16, feed_forward_size=inner)) for inner in (32, 64))
    assert large - small >= 4 * 2 * 16 * 32
