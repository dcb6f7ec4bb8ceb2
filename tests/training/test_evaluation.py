"""The evaluation: what the dev set says of every exit."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np

from fastbert_jax.config import MeshConfig
from fastbert_jax.model.bert import Bert
from fastbert_jax.model.sharding import make_mesh
from fastbert_jax.text.tokenizer import Encoded
from fastbert_jax.training.evaluation import dev_evaluation, evaluation_step
from fastbert_jax.training.losses import cross_entropy
from tests.training import tiny


def test_evaluation_counts_each_text_once_and_no_padding():
    model, params = tiny.model(), tiny.params()
    batch = tiny.batch(rows=10)
    logits_LxBxKxN = jax.jit(model.trace)(params["model"], batch).exit_logits_LxBxKxN
    right = np.asarray(logits_LxBxKxN.argmax(-1) == batch.label_BxK[None]).sum((1, 2))
    loss = cross_entropy(logits_LxBxKxN, batch.label_BxK).sum((1, 2))
    step = jax.jit(functools.partial(evaluation_step, network=model))
    parts = []
    for start in (0, 4, 8):
        rows = jax.tree.map(lambda array, start=start: array[start : start + 4], batch)
        padding = jax.tree.map(lambda array: np.zeros((4 - len(array), *array.shape[1:]), array.dtype), rows)
        parts.append(step(params["model"], jax.tree.map(lambda a, b: np.concatenate([a, b]), rows, padding)))
    total = jax.tree.map(lambda *values: sum(values), *parts)
    assert total.texts == 10
    np.testing.assert_array_equal(total.correct_L, right)
    np.testing.assert_allclose(total.loss_L, loss, rtol=1e-5)


def test_a_layer_without_an_exit_has_no_values():
    network = Bert(dataclasses.replace(tiny.CONFIG, exit_layers=(tiny.CONFIG.num_layers,)))
    params = {"model": network.init(jax.random.key(0))}
    dev = Encoded(np.array([5, 6, 7, 8, 9], np.int32), np.zeros(5, np.int32), np.array([0, 3, 5]), 0, 0)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    with jax.set_mesh(mesh):
        values = dev_evaluation(network, dev, np.array([0, 1]), buckets=(4,), mesh=mesh)(params).values
    assert values["accuracy"][:-1] == values["loss"][:-1] == [None] * (network.num_layers - 1)
    assert values["leaving"]["0.5"] == [None] * (network.num_layers - 1) + [2]
