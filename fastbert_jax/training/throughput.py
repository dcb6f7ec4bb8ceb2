"""How fast a run goes and where its time goes: rates, padding, utilisation, goodput.

Kept apart from the journal, whose lines are the same however often a run was stopped.
"""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from fastbert_jax.training.loggers.every_logger import Loggers

COMPILE_EVENTS = ("/jax/core/compile/backend_compile_duration", "/jax/core/compile/jaxpr_to_mlir_module_duration")
PEAK_SIZE = {"cpu": 1024}
"""Sides of the matrices whose product tells the peak, by platform; `PEAK_SIZE_ELSEWHERE` on the others."""
PEAK_SIZE_ELSEWHERE = 8192


class Meter:
    """Counts texts, tokens and FLOPs, and shares the time out to what it was spent on."""

    def __init__(self, path: Path | None, *, dtype: Any = jnp.float32, loggers: Loggers | None = None) -> None:
        """Begin to count.

        Args:
          path: JSON lines to add to; none: keep nothing.
          dtype: of the arithmetic, for the peak that utilisation is measured against.
          loggers: what else is told.
        """
        self._path, self._dtype, self._loggers = path, dtype, loggers or Loggers()
        self._began = self._window_began = time.perf_counter()
        self._spent: defaultdict[str, float] = defaultdict(float)
        self._window: defaultdict[str, float] = defaultdict(float)
        self._peak: float | None = None
        self._compile = _compile_clock()
        self._compile_seen = self._compile["seconds"]

    @contextlib.contextmanager
    def spending(self, on: str) -> Iterator[None]:
        """The time inside the block goes to `on`; what is compiled there goes to `compile`."""
        began, compiled = time.perf_counter(), self._compile["seconds"]
        try:
            yield
        finally:
            seconds = time.perf_counter() - began - (self._compile["seconds"] - compiled)
            self._spent[on] += seconds
            self._window[on] += seconds

    def _add_compiling(self) -> None:
        seconds = self._compile["seconds"] - self._compile_seen
        self._compile_seen += seconds
        self._spent["compile"] += seconds
        self._window["compile"] += seconds

    def count(self, *, texts: float, tokens: float, places: int, flops: float) -> None:
        """One step is done.

        Args:
          texts, tokens: of the batch, all processes together.
          places: tokens and padding.
          flops: of its arithmetic, padding included.
        """
        for name, value in {"texts": texts, "tokens": tokens, "places": places, "flops": flops}.items():
            self._window[name] += value

    def report(self, event: str, *, step: int) -> str:
        """What was counted since the last report, in words and, as JSON, in the file; then count anew."""
        now = time.perf_counter()
        self._add_compiling()
        window, seconds = self._window, now - self._window_began
        self._window, self._window_began = defaultdict(float), now
        stepping = seconds - sum(window[on] for on in ("compile", "evaluation", "checkpoint", "restore", "peak"))
        if not window["places"] or stepping <= 0:
            return ""
        values = {
            "event": event,
            "step": step,
            "texts_per_second": window["texts"] / stepping,
            "tokens_per_second": window["tokens"] / stepping,
            "padding_share": 1 - window["tokens"] / window["places"],
            "data_wait_share": window["data"] / stepping,
            "model_flop_utilisation": window["flops"] / stepping / self._peak_flops(),
            "goodput": self._goodput(),
            "seconds": dict(self._spent) | {"all": now - self._began},
        }
        self._write(values)
        self._loggers.write("throughput", values, step=step)
        return (
            f"{values['texts_per_second']:.0f} texts/s, {values['tokens_per_second']:.0f} tokens/s, "
            f"padding {values['padding_share']:.0%}, waiting for data {values['data_wait_share']:.0%}, "
            f"utilisation {values['model_flop_utilisation']:.0%}, goodput {values['goodput']:.0%}"
        )

    def _goodput(self) -> float:
        """The share of all time since the beginning that was neither waiting, compiling, measuring nor saving."""
        return max(0.0, 1 - sum(self._spent.values()) / (time.perf_counter() - self._began))

    def _peak_flops(self) -> float:
        """FLOP/s of all devices in matrix products of this dtype, measured on one of them once."""
        if self._peak is None:
            with self.spending("peak"):
                self._peak = jax.device_count() * measured_peak(self._dtype)
        return self._peak

    def _write(self, values: dict[str, Any]) -> None:
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(values) + "\n")


@functools.cache
def _compile_clock() -> dict[str, float]:
    """The seconds that jax has spent compiling since the first call, under `seconds`; they go on counting."""
    clock = {"seconds": 0.0}

    def add(event: str, duration_secs: float, **_: str | int) -> None:
        if event in COMPILE_EVENTS:
            clock["seconds"] += duration_secs

    jax.monitoring.register_event_duration_secs_listener(add)
    return clock


def measured_peak(dtype: Any, *, timer: Callable[[], float] = time.perf_counter) -> float:
    """FLOP/s of one device in square matrix products: the best of five."""
    device = jax.local_devices()[0]
    size = PEAK_SIZE.get(device.platform, PEAK_SIZE_ELSEWHERE)
    square = jax.device_put(jnp.ones((size, size), dtype), device)
    product = jax.jit(jnp.matmul)
    product(square, square).block_until_ready()
    best = float("inf")
    for _ in range(5):
        began = timer()
        product(square, square).block_until_ready()
        best = min(best, timer() - began)
    return 2 * size**3 / best
