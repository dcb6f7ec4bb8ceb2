"""The engine that picks the engine: by the size of the input, and by timing the cascades on the input's own texts."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping

import jax
import numpy as np

from fastbert_jax.config import Mode
from fastbert_jax.inference.engines.engine import Answers, Engine
from fastbert_jax.inference.engines.runtime import Runtime
from fastbert_jax.inference.engines.static_sizes import texts_of
from fastbert_jax.text.batches import Batch

ONE_BATCH, DEFAULT, RIVAL = Mode.BUCKETED, Mode.CASCADE, Mode.GRAPH_CASCADE
PART = 6
"""Batches that an engine answers at a time in a trial."""
ORDER = (DEFAULT, RIVAL, DEFAULT, RIVAL, RIVAL, DEFAULT)
"""Who answers which part of a trial: the first two compile; the others are timed, in an order that drift is fair to."""
TRIAL = PART * len(ORDER)
"""Batches of a trial."""


class Auto(Engine):
    """Runs `bucketed` on an input of one batch, else `cascade`, or `graph-cascade` where that was found to be faster.

    The two are tried where so many batches of one length follow each other that a trial pays: they take turns on the
    input itself, so that no work is done twice, and the faster one goes on. What was found holds for later inputs.
    """

    def __init__(self, runtime: Runtime, engines: Mapping[Mode, Engine]) -> None:
        super().__init__(runtime)
        self._engines = engines
        self._winner: Mode | None = None
        self._evidence = f"{DEFAULT.value}: fewer than {TRIAL} batches of one length, too few to try others on"
        self.said = ""
        """What the last input was given to, and why."""

    def warm_up(self, batch: Batch) -> None:
        """Compile what batches of this shape, or with fewer rows, may need."""
        for mode in {ONE_BATCH, DEFAULT, RIVAL if self._winner is None else self._winner}:
            self._engines[mode].warm_up(batch)

    def _run_early(self, batches: Iterable[Batch], thresholds_L: np.ndarray) -> Iterator[Answers]:
        batches = iter(batches)
        first = list(itertools.islice(batches, 2))
        if len(first) == 1:
            self.said = f"{ONE_BATCH.value}: the input is one batch"
            yield from self._engines[ONE_BATCH].run(first, thresholds_L)
            return
        for _, alike in itertools.groupby(itertools.chain(first, batches), key=_length):
            yield from self._answer_alike(alike, thresholds_L)
        self.said = self._evidence

    def _answer_alike(self, batches: Iterator[Batch], thresholds_L: np.ndarray) -> Iterator[Answers]:
        """Answer batches of one length, by way of a trial where there was none yet and they are enough."""
        if self._winner is None:
            tried = list(itertools.islice(batches, TRIAL))
            if len(tried) == TRIAL:
                yield from self._try(tried, thresholds_L)
            else:
                batches = iter(tried)
        yield from self._engines[self._winner or DEFAULT].run(batches, thresholds_L)

    def _try(self, batches: list[Batch], thresholds_L: np.ndarray) -> Iterator[Answers]:
        """Answer the batches of a trial, and settle who is faster."""
        costs: dict[Mode, list[float]] = {mode: [] for mode in ORDER}
        for number, mode in enumerate(ORDER):
            part = batches[number * PART : (number + 1) * PART]
            start = time.perf_counter()
            answers = list(self._engines[mode].run(part, thresholds_L))
            seconds = time.perf_counter() - start
            steps = sum(
                int(found.exit_layer_B[batch.valid_BxK[:, 0]].sum()) for found, batch in zip(answers, part, strict=True)
            )
            costs[mode].append(seconds / steps)
            yield from answers
        default, rival = (sum(costs[mode][1:]) for mode in (DEFAULT, RIVAL))
        self._winner = RIVAL if rival < default else DEFAULT
        loser = DEFAULT if rival < default else RIVAL
        ratio = max(default, rival) / min(default, rival)
        texts, length = sum(map(texts_of, batches)), _length(batches[0])
        self._evidence = (
            f"{self._winner.value}: {ratio:.2f} times as fast as {loser.value} on the first {texts} texts of {length} "
            f"tokens, on {jax.devices()[0].device_kind}"
        )


def _length(batch: Batch) -> int:
    return batch.text_BxS.shape[1]
