"""The engine that picks the engine: by a rule, the same for the same input, and with the results of the picked ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pytest

from fastbert_jax.config import Mode
from fastbert_jax.inference.engines.auto import MANY_BATCHES, Auto, make_engines
from fastbert_jax.inference.engines.engine import Engine, Masked, Results
from fastbert_jax.text.batches import Batch
from tests.inference.models import batch_of, random_texts, tiny_runtime

LENGTH = 16


@pytest.fixture(scope="module")
def engines() -> dict[Mode, Engine]:
    return make_engines([tiny_runtime(2)])


def batches(count: int, *, length: int = LENGTH) -> Iterator[Batch]:
    for seed in range(count):
        yield batch_of(random_texts(4, longest=8, seed=seed), batch_size=4, length=length)


def together(results: Iterator[Results]) -> Results:
    return Results(*map(np.concatenate, zip(*results, strict=True)))


@pytest.mark.parametrize(
    ("inputs", "picked"),
    [
        ([(LENGTH, 1)], {Mode.BUCKETED: 1}),
        ([(LENGTH, MANY_BATCHES - 1)], {Mode.BUCKETED: MANY_BATCHES - 1}),
        ([(LENGTH, MANY_BATCHES)], {Mode.GRAPH_CASCADE: MANY_BATCHES}),
        ([(2 * LENGTH, 1), (LENGTH, MANY_BATCHES + 3)], {Mode.BUCKETED: 1, Mode.GRAPH_CASCADE: MANY_BATCHES + 3}),
    ],
)
def test_number_and_length_of_the_batches_pick_the_engine(
    engines: dict[Mode, Engine], inputs: list[tuple[int, int]], picked: dict[Mode, int]
) -> None:
    given = [batch for length, count in inputs for batch in batches(count, length=length)]
    auto = engines[Mode.AUTO]
    assert isinstance(auto, Auto)
    found = together(auto.run(given, 0.5))
    assert auto.picked == picked
    expected = together(engines[Mode.MASKED].run(given, 0.5))
    np.testing.assert_array_equal(found.exit_layer_B, expected.exit_layer_B)
    np.testing.assert_allclose(found.probabilities_BxN, expected.probabilities_BxN, atol=1e-5)


def test_lengths_that_go_by_one_engine_are_one_run_of_it(engines: dict[Mode, Engine]) -> None:
    runs: list[list[int]] = []

    class Recorded(Masked):
        def run(self, batches: Iterable[Batch], speed: float | np.ndarray) -> Iterator[Results]:
            runs.append([])
            for batch in batches:
                runs[-1].append(batch.text_BxS.shape[1])
                yield from super().run([batch], speed)

    recorded = Recorded(engines[Mode.MASKED].runtime)
    auto = Auto([recorded.runtime], dict.fromkeys(Mode, recorded))
    few, many = 1, MANY_BATCHES
    given = [
        b for length, count in ((8, few), (16, many), (24, many), (32, few)) for b in batches(count, length=length)
    ]
    found, expected = together(auto.run(given, 0.5)), together(engines[Mode.MASKED].run(given, 0.5))
    assert runs == [[8], [16] * many + [24] * many, [32]]
    np.testing.assert_array_equal(found.probabilities_BxN, expected.probabilities_BxN)


def test_equal_inputs_give_equal_bytes_whatever_came_before(engines: dict[Mode, Engine]) -> None:
    auto, given = engines[Mode.AUTO], list(batches(MANY_BATCHES + 1))
    first = together(auto.run(given, 0.5))
    list(auto.run(batches(1), 0.5))
    again = together(make_engines([tiny_runtime(2)])[Mode.AUTO].run(given, 0.5))
    for one, other in zip(first, again, strict=True):
        assert one.tobytes() == other.tobytes()


def test_speed_0_is_full_depth_in_any_mode(engines: dict[Mode, Engine]) -> None:
    (found,) = engines[Mode.AUTO].run(batches(1), 0.0)
    assert set(found.exit_layer_B) == {5}
