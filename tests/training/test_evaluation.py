"""The evaluation: what the dev set says of every exit."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from fastbert_jax.training.evaluation import evaluation_step
from fastbert_jax.training.losses import cross_entropy
from tests.training import tiny


def test_evaluation_counts_each_text_once_and_no_padding():
    model, params = tiny.model(), tiny.params()
    batch = tiny.batch(rows=10)
    logits_LxBxKxN = jax.jit(model.trace)(params["model"], batch).exit_logits_LxBxKxN
    right = np.asarray(logits_LxBxKxN.argmax(-1) == batch.label_BxK[None]).sum((1, 2))
    loss = cross_entropy(logits_LxBxKxN, jnp.broadcast_to(batch.label_BxK[None], logits_LxBxKxN.shape[:-1])).sum((1, 2))
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
