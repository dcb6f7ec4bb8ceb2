"""What every engine is: batches in, answers out, a few batches under way at a time; speed 0 is plain BERT in all.

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
from fastbert_jax.text.batches import Batch

BATCHES_UNDER_WAY = 2
"""While the host reads the answers of one batch, the device works on another."""

Result = TypeVar("Result")


class Answers(NamedTuple):
    """The answers to a batch, numpy; those of rows that hold no text mean nothing."""

    probabilities_BxN: np.ndarray
    exit_layer_B: np.ndarray
    """int32, 1..L: how many layers the text went through."""
    uncertainty_B: np.ndarray


class Engine(abc.ABC):
    """One way to run early exit. Changing `speed` compiles nothing."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime

    def run(self, batches: Iterable[Batch], speed: float | np.ndarray) -> Iterator[Answers]:
        """Answer batches of one text per row, in their order.

        Args:
          batches: taken one by one, `BATCHES_UNDER_WAY` ahead of the answers.
          speed: the threshold on uncertainty, or one per layer `[L]`; 0 runs plain BERT and no student exit.
        """
        thresholds_L = layer_thresholds(speed, self.runtime.config.num_layers)
        if (thresholds_L > 0).any():
            return self._run_early(batches, thresholds_L)
        return self._run_full_depth(batches)

    @abc.abstractmethod
    def warm_up(self, batch: Batch) -> None:
        """Compile what batches of this shape, or with fewer rows, may need to leave early."""

    def warm_up_full_depth(self, batch: Batch) -> None:
        """Compile what batches of this shape, or with fewer rows, may need at full depth."""
        for rows in batch_buckets(len(batch.text_BxS)):
            jax.block_until_ready(self.runtime.full_depth(first_rows(batch, rows)))

    @abc.abstractmethod
    def _run_early(self, batches: Iterable[Batch], thresholds_L: np.ndarray) -> Iterator[Answers]:
        """Answer batches, each text by its first exit that is sure enough."""

    def _run_full_depth(self, batches: Iterable[Batch]) -> Iterator[Answers]:
        """Answer batches by plain BERT."""
        return side_by_side(map(self._answer_at_full_depth, batches), width=BATCHES_UNDER_WAY)

    def _answer_at_full_depth(self, batch: Batch) -> Generator[None, None, Answers]:
        answer = self.runtime.full_depth(batch)
        yield
        probabilities_BxN, uncertainty_B = jax.device_get(answer)
        depth_B = np.full(len(uncertainty_B), self.runtime.config.num_layers, np.int32)
        return Answers(probabilities_BxN, depth_B, uncertainty_B)


def side_by_side(works: Iterable[Generator[None, None, Result]], *, width: int) -> Iterator[Result]:
    """Run generators `width` at a time, each up to its next `yield` in turn; their results in the generators' order.

    A generator yields where it is about to wait for the device, so that the others have their turn before it waits.
    """
    waiting = iter(works)
    under_way: deque[tuple[int, Generator[None, None, Result]]] = deque()
    done: dict[int, Result] = {}
    started, given = itertools.count(), 0
    while True:
        while len(under_way) < width and (work := next(waiting, None)) is not None:
            under_way.append((next(started), work))
        if not under_way:
            return
        number, work = under_way.popleft()
        try:
            next(work)
            under_way.append((number, work))
        except StopIteration as end:
            done[number] = end.value
        while given in done:
            yield done.pop(given)
            given += 1
