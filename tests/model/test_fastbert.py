"""The whole model: bfloat16 arithmetic, padding, and several texts in a row."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastbert_jax.model.fastbert import FastBert, StudentsAlone
from fastbert_jax.text.batches import Batch
from tests.inference.models import batch_of, random_texts, tiny_config, tiny_params

CONFIG = tiny_config(3)
TEXTS = random_texts(6, longest=8, seed=1)


@functools.cache
def program(dtype: jnp.dtype) -> jax.stages.Wrapped:
    return jax.jit(FastBert(CONFIG, dtype=dtype).apply)


def logits(batch: Batch, dtype: jnp.dtype = jnp.float32) -> np.ndarray:
    """Of all exits, `[L, B, K, N]`."""
    inputs = (batch.token_ids_BxS, batch.token_type_BxS, batch.position_BxS, batch.text_BxS, batch.cls_BxK)
    logits_LxBxKxN = program(dtype)({"params": tiny_params(CONFIG)}, *inputs).exit_logits_LxBxKxN
    assert logits_LxBxKxN.dtype == jnp.float32
    return np.asarray(logits_LxBxKxN)


def test_bfloat16_keeps_parameters_and_logits_in_float32_and_stays_close() -> None:
    ids_1x4, cls_1x1 = np.zeros((1, 4), np.int32), np.zeros((1, 1), np.int32)
    initialise = FastBert(CONFIG, dtype=jnp.bfloat16).init
    params = jax.eval_shape(initialise, jax.random.key(0), *[ids_1x4] * 4, cls_1x1)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}

    batch = batch_of(TEXTS, batch_size=8, length=8)
    ours, exact = logits(batch, jnp.bfloat16), logits(batch)
    assert np.isfinite(ours).all()  # rows of padding alone included
    difference = np.abs(ours - exact)[:, : len(TEXTS)]
    # The logits have a standard deviation of 2.4; bfloat16 rounds each of the five layers to 8 bits.
    assert 0 < difference.mean() < 0.12 and difference.max() < 0.5, (difference.mean(), difference.max())


@pytest.mark.parametrize("length", [9, 20])
def test_padding_never_changes_an_answer(length: int) -> None:
    alone = logits(batch_of(TEXTS, batch_size=6, length=8))
    padded = batch_of(TEXTS, batch_size=7, length=length)
    padding = padded.text_BxS == 0
    padded.token_ids_BxS[padding] = np.random.default_rng(0).integers(1, 30, padding.sum())
    padded.token_type_BxS[padding] = 1
    np.testing.assert_allclose(logits(padded)[:, : len(TEXTS)], alone, atol=1e-5)


def test_texts_that_share_a_row_answer_as_if_alone() -> None:
    alone = logits(batch_of(TEXTS, batch_size=6, length=8))[:, :, 0]
    packed = batch_of(
        [np.concatenate(pair) for pair in zip(TEXTS[::2], TEXTS[1::2], strict=True)], batch_size=3, length=20
    )
    starts = np.array([len(text) for text in TEXTS[::2]], np.int32)
    for row, start in enumerate(starts):
        second = slice(start, start + len(TEXTS[2 * row + 1]))
        packed.position_BxS[row, second] -= start
        packed.text_BxS[row, second] = 2
    packed = packed._replace(cls_BxK=np.stack([np.zeros_like(starts), starts], axis=1))
    found_LxBxKxN = logits(packed)
    np.testing.assert_allclose(found_LxBxKxN[:, :, 0], alone[:, ::2], atol=1e-5)
    np.testing.assert_allclose(found_LxBxKxN[:, :, 1], alone[:, 1::2], atol=1e-5)


@pytest.mark.parametrize("unroll", [1, 2])
def test_students_alone_answer_and_drop_out_as_in_the_whole_model_without_its_top(unroll: int) -> None:
    params, noisy = tiny_params(CONFIG), frozenset({"lower_exits"})
    batch = batch_of(TEXTS, batch_size=8, length=8)
    inputs = (batch.token_ids_BxS, batch.token_type_BxS, batch.position_BxS, batch.text_BxS, batch.cls_BxK)

    def students(model: FastBert | StudentsAlone, params: dict) -> np.ndarray:
        apply = jax.jit(functools.partial(model.apply, noisy=noisy))
        return np.asarray(apply({"params": params}, *inputs, rngs={"dropout": jax.random.key(3)}).lower_logits_LxBxKxN)

    whole = students(FastBert(CONFIG, dropout=0.5, unroll=unroll), params)
    params["backbone"]["layers"] = jax.tree.map(lambda leaf: leaf.copy(), params["backbone"]["layers"])
    for leaf in jax.tree.leaves(params["backbone"]["layers"]):
        leaf[-1] = np.nan
    del params["last_exit"]
    alone = StudentsAlone(CONFIG, dropout=0.5, unroll=unroll)
    np.testing.assert_allclose(students(alone, params), whole, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"noisy: expected none but the students, found \['backbone'\]"):
        alone.apply({"params": params}, *inputs, noisy=frozenset({"backbone"}))
