"""The interface of every engine, and the simplest one, `masked`. Batches go in, results come out; a few are in flight.

Speed 0 is plain BERT in all engines.

Shapes in names: B texts (one per row), S sequence, H hidden, L layers, N classes.
"""

from __future__ import annotations

import abc
import itertools
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from fastbert_jax.inference.engines.runtime import Runtime
from fastbert_jax.inference.plan import batch_buckets, first_rows
from fastbert_jax.model.network import Array, Params
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

    def __init__(self, runtime: Runtime, *others: Runtime) -> None:
        """An engine on one runtime, or on several with a copy of the model each, which take turns at full depth."""
        self.runtime = runtime
        self.runtimes = (runtime, *others)

    def run(self, batches: Iterable[Batch], speed: float | np.ndarray) -> Iterator[Results]:
        """Classify batches of one text per row, in their order.

        Args:
          batches: taken one by one, `BATCHES_IN_FLIGHT` for each runtime ahead of the results.
          speed: the threshold on uncertainty, or one per layer `[L]`; 0 runs plain BERT and no lower exit.
        """
        thresholds_L = np.broadcast_to(np.asarray(speed, np.float32), (self.runtime.network.num_layers,))
        if (thresholds_L > 0).any():
            return self._run_early(batches, thresholds_L)
        return self._run_full_depth(batches)

    def warm_up(self, batch: Batch) -> None:
        """Compile what batches of this shape, or with fewer rows, may need at any speed."""
        for runtime, rows in itertools.product(self.runtimes, batch_buckets(len(batch.text_BxS))):
            jax.block_until_ready(runtime.full_depth(first_rows(batch, rows)))
        self._warm_up_early(batch)

    @abc.abstractmethod
    def _warm_up_early(self, batch: Batch) -> None:
        """Compile what batches of this shape, or with fewer rows, may need for early exit."""

    @abc.abstractmethod
    def _run_early(self, batches: Iterable[Batch], thresholds_L: np.ndarray) -> Iterator[Results]:
        """Classify batches, each text by its first exit that is sure enough."""

    def _run_full_depth(self, batches: Iterable[Batch]) -> Iterator[Results]:
        """Classify batches by plain BERT."""
        works = map(self._classify_at_full_depth, itertools.cycle(self.runtimes), batches)
        return side_by_side(works, in_flight=BATCHES_IN_FLIGHT * len(self.runtimes))

    def _classify_at_full_depth(self, runtime: Runtime, batch: Batch) -> Generator[None, None, Results]:
        result = runtime.full_depth(batch)
        yield
        probabilities_BxN, uncertainty_B = jax.device_get(result)
        depth_B = np.full(len(uncertainty_B), self.runtime.network.num_layers, np.int32)
        return Results(probabilities_BxN, depth_B, uncertainty_B)


class Masked(Engine):
    """Every layer and every exit on a fixed shape, under one jit; a text's result is that of its first sure exit.

    This is what early exit costs without a host loop. It saves nothing, and defines what the others must give.
    """

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime)
        self.program = runtime.jit(self._run_all_layers)

    def _run_early(self, batches: Iterable[Batch], thresholds_L: np.ndarray) -> Iterator[Results]:
        return side_by_side(self._classify(batch, thresholds_L) for batch in batches)

    def _warm_up_early(self, batch: Batch) -> None:
        never = np.zeros(self.runtime.network.num_layers, np.float32)
        parts = (first_rows(batch, rows) for rows in batch_buckets(len(batch.text_BxS)))
        list(self._run_early(parts, never))

    def _classify(self, batch: Batch, thresholds_L: np.ndarray) -> Generator[None, None, Results]:
        results = self.program(self.runtime.params, batch, thresholds_L)
        yield
        return Results(*jax.device_get(results))

    def _run_all_layers(self, params: Params, batch: Batch, thresholds_L: jax.Array) -> Results:
        probabilities_LxBxN, uncertainty_LxB = self.runtime.run_all_exits(params, batch)
        asked_Lx1 = jnp.array(self.runtime.asked)[:, None]
        sure_LxB = asked_Lx1 & (uncertainty_LxB < thresholds_L[:, None])
        exit_1xB = sure_LxB.at[-1].set(True).argmax(0)[None]
        return Results(
            jnp.take_along_axis(probabilities_LxBxN, exit_1xB[:, :, None], axis=0)[0],
            exit_1xB[0].astype(jnp.int32) + 1,
            jnp.take_along_axis(uncertainty_LxB, exit_1xB, axis=0)[0],
        )


def side_by_side(
    works: Iterable[Generator[None, None, Output]], *, in_flight: int = BATCHES_IN_FLIGHT
) -> Iterator[Output]:
    """Run so many generators at a time, each up to its next `yield` in turn; give the results in order.

    A generator yields where it is about to wait for the device, so that the others run before it waits.
    """
    waiting = iter(works)
    running: deque[tuple[int, Generator[None, None, Output]]] = deque()
    done: dict[int, Output] = {}
    started, given = itertools.count(), 0
    while True:
        while len(running) < in_flight and (work := next(waiting, None)) is not None:
            running.append((next(started), work))
        if not running:
            return
        number, work = running.popleft()
        try:
            next(work)
            running.append((number, work))
        except StopIteration as end:
            done[number] = end.value
        while given in done:
            yield done.pop(given)
            given += 1
