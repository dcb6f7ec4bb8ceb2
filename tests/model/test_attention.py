"""Attention: every way to compute it against float64."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastbert_jax.model.attention import attention, by_lengths

ROWS, HEADS, WIDTH = 5, 3, 8
TOLERANCE = {jnp.float32: 2e-6, jnp.bfloat16: 3e-2}
"""Of a context whose values have a deviation of 1, from scores of up to 4; bfloat16 rounds both to 8 bits."""
LENGTHS = {"one token": [1] * ROWS, "full": [24] * ROWS, "padded": [1, 7, 24, 13, 0]}
PACKED = np.array([[1] * 5 + [2] * 9 + [3] * 4 + [0] * 6, [1] * 24, [1, *[2] * 23], [*range(1, 25)], [0] * 24])


def texts(lengths: list[int]) -> np.ndarray:
    """The text of each token, one text a row, `[B, S]`."""
    return (np.arange(max(lengths))[None] < np.array(lengths)[:, None]).astype(np.int32)


CASES = {name: texts(lengths) for name, lengths in LENGTHS.items()} | {"packed": PACKED.astype(np.int32)}
STEPS = functools.partial(attention, packed=True)


def inputs(length: int, dtype: type) -> list[jax.Array]:
    """Query, key and value, `[B, A, S, D]`."""
    shape, random = (ROWS, HEADS, length, WIDTH), np.random.default_rng(length)
    return [jnp.asarray(random.normal(size=shape), dtype) for _ in range(3)]


def reference(query: np.ndarray, key: np.ndarray, value: np.ndarray, text_BxS: np.ndarray) -> np.ndarray:
    """The formula in float64, at padding too."""
    scores = np.einsum("baqd,bakd->baqk", query, key) / np.sqrt(WIDTH)
    scores = np.where((text_BxS[:, :, None] == text_BxS[:, None, :])[:, None], scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("baqk,bakd->baqd", weights / weights.sum(-1, keepdims=True), value)


def largest_error(run: Callable[..., jax.Array], text_BxS: np.ndarray, dtype: type) -> float:
    """Of the context of any token of a text, from the formula's in float64."""
    arrays = inputs(text_BxS.shape[1], dtype)
    context = run(*arrays, jnp.asarray(text_BxS))
    assert context.dtype == dtype and np.isfinite(np.asarray(context, np.float64)).all()
    is_text = np.broadcast_to((text_BxS > 0)[:, None, :, None], context.shape)
    expected = reference(*(np.asarray(array, np.float64) for array in arrays), text_BxS)
    return float(abs(np.asarray(context, np.float64) - expected)[is_text].max())


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", CASES)
def test_attention_in_steps_is_the_formula(case: str, dtype: type) -> None:
    assert largest_error(lambda *arrays: STEPS(*arrays)[0], CASES[case], dtype) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", LENGTHS)
def test_attention_by_lengths_is_the_formula(case: str, dtype: type) -> None:
    """What cuDNN is asked for, computed by XLA."""
    with jax.numpy_dtype_promotion("standard"):
        error = largest_error(functools.partial(by_lengths, implementation="xla"), CASES[case], dtype)
    assert error < TOLERANCE[dtype]


def test_a_gpu_gets_its_kernel_for_texts_alone_in_bfloat16_without_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def kernel(*arrays: jax.Array, implementation: str) -> jax.Array:
        asked.append(implementation)
        return arrays[2]

    monkeypatch.setattr("fastbert_jax.model.attention.by_lengths", kernel)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")

    def ask(dtype: type, **settings: object) -> list[str]:
        asked.clear()
        jax.eval_shape(functools.partial(attention, **settings), *inputs(24, dtype), CASES["padded"])
        return [*asked]

    assert ask(jnp.bfloat16, packed=False) == ["cudnn"]
    assert ask(jnp.float32, packed=False) == ask(jnp.bfloat16, packed=True) == []
    assert ask(jnp.bfloat16, packed=False, drop=lambda weights: weights) == []


def test_scores_that_nothing_reads_are_not_computed_beside_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program of a GPU, with another kernel in the place of cuDNN's, which needs one to be traced."""
    monkeypatch.setattr("fastbert_jax.model.attention.by_lengths", lambda *arrays, implementation: arrays[2] * 2)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    arrays = [*inputs(24, jnp.bfloat16), jnp.asarray(CASES["padded"])]

    def products(read: Callable[[tuple[jax.Array, jax.Array]], object], platform: str) -> int:
        traced = jax.jit(lambda *arrays: read(attention(*arrays, packed=False))).trace(*arrays)
        return traced.lower(lowering_platforms=(platform,)).as_text().count("stablehlo.dot_general")

    assert products(lambda outputs: outputs[0], "cuda") == 0
    assert products(lambda outputs: outputs[1], "cuda") == 1
    assert products(lambda outputs: outputs[0], "cpu") == 2


@pytest.mark.parametrize("case", CASES)
def test_the_gradient_of_bfloat16_is_that_of_float32_but_for_rounding(case: str) -> None:
    text_BxS = jnp.asarray(CASES[case])

    def gradients(arrays: list[jax.Array]) -> list[np.ndarray]:
        def loss(arrays: list[jax.Array]) -> jax.Array:
            is_text = (text_BxS > 0)[:, None, :, None]
            return jnp.where(is_text, jnp.sin(STEPS(*arrays, text_BxS)[0].astype(jnp.float32)), 0.0).sum()

        return [np.asarray(gradient, np.float64) for gradient in jax.jit(jax.grad(loss))(arrays)]

    low = inputs(text_BxS.shape[1], jnp.bfloat16)
    high = gradients([array.astype(jnp.float32) for array in low])
    for ours, exact in zip(gradients(low), high, strict=True):
        np.testing.assert_allclose(ours, exact, atol=0.03 * max(1.0, np.abs(exact).max()))
