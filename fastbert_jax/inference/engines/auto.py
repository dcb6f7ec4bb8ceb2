"""The engines by their names, on one device or several, and `auto`, which picks one by a rule."""

from __future__ import annotations

import itertools
import operator
import queue
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from fastbert_jax.config import Mode
from fastbert_jax.inference.engines.bucketed import Bucketed
from fastbert_jax.inference.engines.cascade import Cascade
from fastbert_jax.inference.engines.engine import Engine, Masked, Results
from fastbert_jax.inference.engines.graph_cascade import GraphCascade
from fastbert_jax.inference.engines.runtime import Runtime
from fastbert_jax.text.batches import Batch

ENGINES: dict[Mode, type[Engine]] = {
    Mode.MASKED: Masked,
    Mode.BUCKETED: Bucketed,
    Mode.CASCADE: Cascade,
    Mode.GRAPH_CASCADE: GraphCascade,
}
MANY_BATCHES = 2
"""Batches of one length from which on the compiled loop is used, as it is then as fast as `bucketed` or faster
(benchmarks/results/engine_efficiency_*_batches.json and _512_reviews.json) and compiles about as long."""


class AllDevices(Engine):
    """Engines of one kind, one per device, each driven by a thread of its own, that take turns at the batches."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        super().__init__(*(engine.runtime for engine in engines))
        self.engines = tuple(engines)

    def _warm_up_early(self, batch: Batch) -> None:
        for engine in self.engines:
            engine._warm_up_early(batch)

    def _run_early(self, batches: Iterable[Batch], thresholds_L: np.ndarray) -> Iterator[Results]:
        """As of every engine; an error on one device ends the work of all and reaches the caller."""
        one_takes, stopped = threading.Lock(), threading.Event()

        def take(turn: int, batches: Iterator[Batch]) -> Iterator[Batch]:
            own = itertools.islice(batches, turn, None, len(self.engines))
            while not stopped.is_set():
                with one_takes:
                    batch = next(own, None)
                if batch is None:
                    return
                yield batch

        def drive(engine: Engine, own: Iterator[Batch], done: queue.SimpleQueue[Results | None]) -> None:
            try:
                for results in engine.run(own, thresholds_L):
                    done.put(results)
            except BaseException as error:
                failures.append(error)
            done.put(None)

        failures: list[BaseException] = []
        copies = itertools.tee(batches, len(self.engines))
        found: list[queue.SimpleQueue[Results | None]] = [queue.SimpleQueue() for _ in self.engines]
        threads = [
            threading.Thread(target=drive, args=(engine, take(turn, copies[turn]), found[turn]), daemon=True)
            for turn, engine in enumerate(self.engines)
        ]
        for thread in threads:
            thread.start()
        try:
            for done in itertools.cycle(found):
                if (results := done.get()) is None:  # no batch is left for the others either, or the device failed
                    break
                yield results
        finally:  # a reader that has enough must not leave threads at work
            stopped.set()
            for thread in threads:
                thread.join()
        if failures:
            raise failures[0]


class Auto(Engine):
    """Picks an engine by the number and the length of the texts, never by the clock: equal inputs, equal engines.

    `MANY_BATCHES` or more batches of one length in a row run `graph-cascade`, fewer run `bucketed`.
    """

    def __init__(self, runtimes: Sequence[Runtime], engines: Mapping[Mode, Engine]) -> None:
        super().__init__(*runtimes)
        self._engines = engines
        self.picked: dict[Mode, int] = {}
        """The engines of the last input, and how many batches each of them ran."""

    def _warm_up_early(self, batch: Batch) -> None:
        for mode in (Mode.BUCKETED, Mode.GRAPH_CASCADE):
            self._engines[mode]._warm_up_early(batch)

    def _run_early(self, batches: Iterable[Batch], thresholds_L: np.ndarray) -> Iterator[Results]:
        self.picked = {}
        # Of one run where lengths that follow each other go by one engine: it starts on one before another ends.
        for mode, picked in itertools.groupby(self._pick(batches), key=operator.itemgetter(0)):
            for results in self._engines[mode].run((batch for _, batch in picked), thresholds_L):
                self.picked[mode] = self.picked.get(mode, 0) + 1
                yield results

    @staticmethod
    def _pick(batches: Iterable[Batch]) -> Iterator[tuple[Mode, Batch]]:
        for _, alike in itertools.groupby(batches, key=lambda batch: batch.text_BxS.shape[1]):
            ahead = list(itertools.islice(alike, MANY_BATCHES))
            mode = Mode.GRAPH_CASCADE if len(ahead) == MANY_BATCHES else Mode.BUCKETED
            for batch in itertools.chain(ahead, alike):
                yield mode, batch


def make_engines(runtimes: Sequence[Runtime]) -> dict[Mode, Engine]:
    """Every engine of one model, on all runtimes, a copy of it each, and `auto`, which picks among them."""
    engines: dict[Mode, Engine] = {}
    for mode, kind in ENGINES.items():
        one_each = [kind(runtime) for runtime in runtimes]
        engines[mode] = one_each[0] if len(one_each) == 1 else AllDevices(one_each)
    if len(runtimes) > 1 and all(len(runtime.devices) == 1 for runtime in runtimes):
        engines[Mode.GRAPH_CASCADE] = GraphCascade(*runtimes)
    return {Mode.AUTO: Auto(runtimes, engines), **engines}
