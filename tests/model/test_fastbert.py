"""The whole model: bfloat16 arithmetic, padding, and several texts in a row."""

from __future__ import annotations

import dataclasses
import functools

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastbert_jax.config import Precision
from fastbert_jax.model.bert import Bert
from fastbert_jax.model.network import Part
from fastbert_jax.text.batches import Batch
from tests.inference.models import batch_of, random_texts, tiny_config, tiny_params

CONFIG = tiny_config(3)
TEXTS = random_texts(6, longest=8, seed=1)


@functools.cache
def program(precision: Precision) -> jax.stages.Wrapped:
    return jax.jit(Bert(CONFIG, precision=precision).trace)


def logits(batch: Batch, precision: Precision = Precision.FLOAT32) -> np.ndarray:
    """Of all exits, `[L, B, K, N]`."""
    logits_LxBxKxN = program(precision)(tiny_params(CONFIG), batch).exit_logits_LxBxKxN
    assert logits_LxBxKxN.dtype == jnp.float32
    return np.asarray(logits_LxBxKxN)


def test_bfloat16_keeps_parameters_and_logits_in_float32_and_stays_close() -> None:
    params = jax.eval_shape(Bert(CONFIG, precision=Precision.BFLOAT16).init, jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}

    batch = batch_of(TEXTS, batch_size=8, length=8)
    ours, exact = logits(batch, Precision.BFLOAT16), logits(batch)
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
def test_a_pass_that_ends_below_the_top_gives_the_same_lower_exits_and_dropout(unroll: int) -> None:
    params, batch = tiny_params(CONFIG), batch_of(TEXTS, batch_size=8, length=8)
    network = Bert(CONFIG, dropout=0.5, unroll=unroll)

    def lower_logits(params: dict, depth: int) -> np.ndarray:
        run = functools.partial(network.trace, dropout_in=frozenset({Part.LOWER_EXITS}), depth=depth)
        return np.asarray(jax.jit(run)(params, batch, jax.random.key(3)).lower_logits_LxBxKxN)

    whole = lower_logits(params, 0)
    params["backbone"]["layers"] = jax.tree.map(lambda leaf: leaf.copy(), params["backbone"]["layers"])
    for leaf in jax.tree.leaves(params["backbone"]["layers"]):
        leaf[-1] = np.nan
    del params["last_exit"]
    below = CONFIG.num_layers - 1
    np.testing.assert_allclose(lower_logits(params, below), whole, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="ended below the last exit"):
        _ = network.trace(params, batch, depth=below).exit_logits_LxBxKxN


@pytest.mark.parametrize("exit_layers", [(), (2, 5), (5,)])
def test_leaves_describe_what_init_makes_and_a_trace_has_an_exit_for_each_layer_that_has_one(
    exit_layers: tuple[int, ...],
) -> None:
    network = Bert(dataclasses.replace(CONFIG, exit_layers=exit_layers))
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    found = {path: leaf.shape for path, leaf in flax.traverse_util.flatten_dict(shapes, sep="/").items()}
    assert found == {leaf.path: leaf.tree_shape for leaf in network.leaves}
    params, batch = tiny_params(CONFIG), batch_of(TEXTS, batch_size=8, length=8)
    every = jax.jit(Bert(CONFIG).trace)(params, batch).exit_logits_LxBxKxN
    kept = [layer - 1 for layer in network.config.exit_layers]
    if kept[:-1]:
        params["lower_exits"] = jax.tree.map(lambda leaf: leaf[np.array(kept[:-1])], params["lower_exits"])
    some = jax.jit(network.trace)(params, batch).exit_logits_LxBxKxN
    np.testing.assert_allclose(some, every[np.array(kept)], rtol=1e-5, atol=1e-5)
