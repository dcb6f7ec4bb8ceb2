"""The engine that picks the engine: what it picks, what it says, and that its answers are theirs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from fastbert_jax.config import Mode
from fastbert_jax.inference.engines import auto
from fastbert_jax.inference.engines.auto import make_engines
from fastbert_jax.inference.engines.engine import Engine, Results
from fastbert_jax.text.batches import Batch
from tests.inference.models import batch_of, random_texts, tiny_runtime

LENGTH = 16


@pytest.fixture(scope="module")
def engines() -> dict[Mode, Engine]:
    return make_engines([tiny_runtime(2)])


def batches(count: int, *, length: int = LENGTH) -> Iterator[Batch]:
    for seed in range(count):
        yield batch_of(random_texts(4, longest=8, seed=seed), batch_size=4, length=length)


def assert_right(engines: dict[Mode, Engine], inputs: list[Batch]) -> None:
    """The answers of `auto` are those of the engine that defines them, in the order of the batches."""
    found, expected = (
        [Results(*map(np.concatenate, zip(*engines[mode].run(inputs, 0.5), strict=True)))]
        for mode in (Mode.AUTO, Mode.MASKED)
    )
    np.testing.assert_array_equal(found[0].exit_layer_B, expected[0].exit_layer_B)
    np.testing.assert_allclose(found[0].probabilities_BxN, expected[0].probabilities_BxN, atol=1e-5)


def test_one_batch_is_bucketed(engines: dict[Mode, Engine]) -> None:
    assert_right(engines, list(batches(1)))
    assert engines[Mode.AUTO].said == "bucketed: the input is one batch"


@pytest.mark.parametrize("slow", [Mode.CASCADE, Mode.GRAPH_CASCADE])
def test_the_faster_cascade_goes_on_after_a_trial(monkeypatch: pytest.MonkeyPatch, slow: Mode) -> None:
    engines = make_engines([tiny_runtime(2)])
    clock = [0.0]
    monkeypatch.setattr(auto.time, "perf_counter", lambda: clock[0])
    given: dict[Mode, int] = {}

    def counting(mode: Mode, engine: Engine) -> None:
        answer = engine.run

        def run(inputs: object, speed: object) -> Iterator[Results]:
            for found in answer(inputs, speed):
                clock[0] += 2.0 if mode is slow else 1.0
                given[mode] = given.get(mode, 0) + 1
                yield found

        monkeypatch.setattr(engine, "run", run)

    for mode in (Mode.CASCADE, Mode.GRAPH_CASCADE):
        counting(mode, engines[mode])

    few = auto.TRIAL - 1
    assert len(list(engines[Mode.AUTO].run(batches(few), 0.5))) == few
    assert "too few" in engines[Mode.AUTO].said and given == {Mode.CASCADE: few}

    fast = ({Mode.CASCADE, Mode.GRAPH_CASCADE} - {slow}).pop()
    given.clear()
    inputs = [*batches(2, length=2 * LENGTH), *batches(auto.TRIAL + 5)]
    assert_right(engines, inputs)
    assert (
        engines[Mode.AUTO].said.startswith(f"{fast.value}: ") and f"as fast as {slow.value}" in engines[Mode.AUTO].said
    )
    in_trial = auto.TRIAL // 2
    assert given[slow] == in_trial + (2 if slow is Mode.CASCADE else 0)
    assert given[fast] == in_trial + 5 + (2 if fast is Mode.CASCADE else 0)

    given.clear()
    list(engines[Mode.AUTO].run(batches(3), 0.5))
    assert given == {fast: 3}


def test_speed_0_is_full_depth_in_any_mode(engines: dict[Mode, Engine]) -> None:
    (found,) = engines[Mode.AUTO].run(batches(1), 0.0)
    assert set(found.exit_layer_B) == {5}
