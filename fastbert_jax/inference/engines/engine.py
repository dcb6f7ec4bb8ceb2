"""The interface of every engine: batches in, results out, a few batches in flight; speed 0 is plain BERT in all.

Shapes in names: B texts (one per row), S sequence, H hidden, L layers, N classes.
"""

from __future__ import annotations

import abc
import itertools
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import NamedTuple, TypeVar

import jax
import numpy as np

from fastbert_jax.inference.engines.runtime import Runtime
from fastbert_jax.inference.engines.static_sizes import batch_buckets, first_rows
from fastbert_jax.inference.policies import layer_thresholds
from fastbert_jax.model.network import Array
from fastbert_jax.text.batches import Batch

BATCHES_IN_FLIGHT = 2
"""While the host reads the results of one batch, the device works on another."""

Output = TypeVar("Output")


class Results(NamedTuple):
    """The results of B texts; those of rows without a text have no meaning. Engines give numpy arrays."""

    probabilities_BxN: Array
    """float32, of the exit that each text took."""
    exit_layer_B: Array
    """int32, 1..L: how many layers ran."""
    uncertainty_B: Array
    """float32, of the exit that each text took."""

    @classmethod
    def empty(cls, texts: int, num_classes: int) -> Results:
        """Zeros to write results into."""
        return cls(np.zeros((texts, num_classes), np.float32), np.zeros(texts, np.int32), np.zeros(texts, np.float32))


class Engine(abc.ABC):
    """One way to run early exit. Changing `speed` compiles nothing."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime

    def run(self, batches: Iterable[Batch], speed: float | np.ndarray) -> Iterator[Results]:
        """Classify batches of one text per row, in their order.

        Args:
          batches: taken one by one, `BATCHES_IN_FLIGHT` ahead of the results.
          speed: the threshold on uncertainty, or one per layer `[L]`; 0 runs plain BERT and no lower exit.
        """
        thresholds_L = layer_thresholds(speed, self.runtime.network.num_layers)
        if (thresholds_L > 0).any():
            return self._run_early(batches, thresholds_L)
        return self._run_full_depth(batches)

    @abc.abstractmethod
    def warm_up(self, batch: Batch) -> None:
        """Compile what batches of this shape, or with fewer rows, may need for early exit."""

    def warm_up_full_depth(self, batch: Batch) -> None:
        """Compile what batches of this shape, or with fewer rows, may need at full depth."""
        for rows in batch_buckets(len(batch.text_BxS)):
            jax.block_until_ready(self.runtime.full_depth(first_rows(batch, rows)))

    @abc.abstractmethod
    def _run_early(self, batches: Iterable[Batch], thresholds_L: np.ndarray) -> Iterator[Results]:
        """Classify batches, each text by its first exit that is sure enough."""

    def _run_full_depth(self, batches: Iterable[Batch]) -> Iterator[Results]:
        """Classify batches by plain BERT."""
        return side_by_side(map(self._classify_at_full_depth, batches), width=BATCHES_IN_FLIGHT)

    def _classify_at_full_depth(self, batch: Batch) -> Generator[None, None, Results]:
        result = self.runtime.full_depth(batch)
        yield
        probabilities_BxN, uncertainty_B = jax.device_get(result)
        depth_B = np.full(len(uncertainty_B), self.runtime.network.num_layers, np.int32)
        return Results(probabilities_BxN, depth_B, uncertainty_B)


def side_by_side(works: Iterable[Generator[None, None, Output]], *, width: int) -> Iterator[Output]:
    """Run generators `width` at a time, each up to its next `yield` in turn; give their results in their own order.

    A generator yields where it is about to wait for the device, so that the others run before it waits.
    """
    waiting = iter(works)
    in_flight: deque[tuple[int, Generator[None, None, Output]]] = deque()
    done: dict[int, Output] = {}
    started, given = itertools.count(), 0
    while True:
        while len(in_flight) < width and (work := next(waiting, None)) is not None:
            in_flight.append((next(started), work))
        if not in_flight:
            return
        number, work = in_flight.popleft()
        try:
            next(work)
            in_flight.append((number, work))
        except StopIteration as end:
            done[number] = end.value
        while given in done:
            yield done.pop(given)
            given += 1
