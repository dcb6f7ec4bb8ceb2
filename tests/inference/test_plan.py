"""Sizes by device: those of a GPU or a TPU are larger and fewer, and change no answer."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from fastbert_jax.config.shared import BatchConfig
from fastbert_jax.inference import plan
from fastbert_jax.inference.engines.bucketed import Bucketed
from fastbert_jax.inference.engines.cascade import Cascade
from fastbert_jax.inference.engines.engine import Engine, Masked
from fastbert_jax.inference.plan import ACCELERATOR, CPU, batch_buckets, batch_rows, next_bucket
from tests.inference.models import batch_of, random_texts, tiny_runtime

ROWS, LENGTH = 16, 8


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "CPU", ACCELERATOR)


@pytest.mark.usefixtures("on_a_gpu")
def test_a_gpu_takes_tens_of_thousands_of_tokens_where_no_number_is_given() -> None:
    assert batch_rows((16, 64), batch_size=0, batch_tokens=0) == {16: 2048, 64: 512}
    assert batch_rows((16, 64), batch_size=0, batch_tokens=128) == {16: 8, 64: 2}


def test_the_help_names_the_tokens_of_each_device() -> None:
    said = f"0: {CPU.batch_tokens} on a CPU, {ACCELERATOR.batch_tokens} on a GPU or TPU."
    assert said in " ".join(inspect.getsource(BatchConfig).split())


@pytest.mark.usefixtures("on_a_gpu")
def test_buckets_of_a_gpu_are_few_and_so_are_the_moves_between_them() -> None:
    buckets = batch_buckets(682)
    assert buckets == (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 682)
    moves = {(rows, next_bucket(buckets, rows, texts)) for rows in buckets for texts in range(1, rows + 1)}
    assert sum(rows != to for rows, to in moves) == len(buckets) - 1
    for texts in range(1, 683):
        rows = 682
        while (to := next_bucket(buckets, rows, texts)) < rows:
            rows = to
        assert texts <= rows <= max(2 * texts - 1, 1) or rows == 682


@pytest.mark.usefixtures("on_a_gpu")
@pytest.mark.parametrize("kind", [Bucketed, Cascade])
def test_sizes_of_a_gpu_change_no_answer(kind: type[Engine]) -> None:
    runtime = tiny_runtime(2)
    batches = [batch_of(random_texts(ROWS, longest=LENGTH, seed=s), batch_size=ROWS, length=LENGTH) for s in range(5)]
    engine, masked = kind(runtime), Masked(runtime)
    engine.warm_up(batches[0])
    masked.warm_up(batches[0])
    warm = runtime.compiled_programs
    for speed in (0.2, 0.5, 0.8):
        for found, expected in zip(engine.run(batches, speed), masked.run(batches, speed), strict=True):
            np.testing.assert_array_equal(found.exit_layer_B, expected.exit_layer_B)
            np.testing.assert_allclose(found.probabilities_BxN, expected.probabilities_BxN, atol=1e-5)
    assert runtime.compiled_programs == warm
