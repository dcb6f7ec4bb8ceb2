"""An engine on every device of this process: each takes the next batch when it is ready for one."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from fastbert_jax.inference.engines.engine import Engine, Results
from fastbert_jax.text.batches import Batch


class AllDevices(Engine):
    """Engines of one kind, one per device, each driven by a thread of its own; answers in the order of the batches."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        super().__init__(engines[0].runtime)
        self.engines = tuple(engines)

    def warm_up(self, batch: Batch) -> None:
        """Compile what batches of this shape, or with fewer rows, may need, for every device."""
        for engine in self.engines:
            engine.warm_up(batch)

    def warm_up_full_depth(self, batch: Batch) -> None:
        """The same for full depth."""
        for engine in self.engines:
            engine.warm_up_full_depth(batch)

    def run(self, batches: Iterable[Batch], speed: float | np.ndarray) -> Iterator[Results]:
        """Answer batches, whichever device is free taking the next."""
        return _in_order(_Work(self.engines, iter(batches), speed))

    def _run_early(self, batches: Iterable[Batch], thresholds_L: np.ndarray) -> Iterator[Results]:
        return self.run(batches, thresholds_L)


class _Work:
    """The batches still to take, the answers not yet given, and the threads between them."""

    def __init__(self, engines: Sequence[Engine], batches: Iterator[Batch], speed: float | np.ndarray) -> None:
        self._batches, self._speed = batches, speed
        self._numbers = itertools.count()
        self._taking = threading.Lock()
        self.changed = threading.Condition()
        self.done: dict[int, Results] = {}
        self.failure: BaseException | None = None
        self.stopped = False
        self.running = len(engines)
        self.threads = [threading.Thread(target=self._drive, args=(engine,), daemon=True) for engine in engines]

    def _drive(self, engine: Engine) -> None:
        taken: deque[int] = deque()
        try:
            for answers in engine.run(self._take(taken), self._speed):
                with self.changed:
                    self.done[taken.popleft()] = answers
                    self.changed.notify()
        except BaseException as error:
            self.failure = error
        with self.changed:
            self.running -= 1
            self.changed.notify()

    def _take(self, taken: deque[int]) -> Iterator[Batch]:
        while True:
            with self._taking:
                batch = None if self.stopped or self.failure else next(self._batches, None)
                if batch is None:
                    return
                taken.append(next(self._numbers))
            yield batch


def _in_order(work: _Work) -> Iterator[Results]:
    for thread in work.threads:
        thread.start()
    try:
        for number in itertools.count():
            with work.changed:
                while number not in work.done and work.running and not work.failure:
                    work.changed.wait()
                if work.failure:
                    raise work.failure
                if number not in work.done:
                    return
                answers = work.done.pop(number)
            yield answers
    finally:  # a reader that has enough must not leave threads at work
        work.stopped = True
        for thread in work.threads:
            thread.join()
