"""How fast a run goes: rates and shares of time in `throughput.jsonl`, and profiles of some steps for xprof.

They are kept apart from the journal, whose lines are the same however often a run was stopped.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from fastbert_jax import processes
from fastbert_jax.atomic_files import unless_refused
from fastbert_jax.training.journal import Journal

COMPILE_EVENTS = ("/jax/core/compile/backend_compile_duration", "/jax/core/compile/jaxpr_to_mlir_module_duration")
BETWEEN_STEPS = ("compile", "evaluation", "checkpoint", "restore", "peak")
"""What time is spent on beside steps."""
PEAK_SIZE = {"cpu": 1024}
"""Sides of the matrices whose product tells the peak, by platform; 8192 on all others."""


class Meter:
    """Counts texts, tokens and FLOPs, and the seconds by what they were spent on."""

    def __init__(self, path: Path | None, *, dtype: Any = jnp.float32, journal: Journal | None = None) -> None:
        """Begin to count.

        Args:
          path: JSON lines to add to; None: nothing is kept.
          dtype: of the arithmetic, for the peak that utilisation is measured against.
          journal: its loggers get the numbers too.
        """
        self._path, self._dtype, self._journal = path, dtype, journal
        self._began = time.perf_counter()
        self._seconds_reported: defaultdict[str, float] = defaultdict(float)
        self._begin_report()

    def _begin_report(self) -> None:
        self._report_began, self._compiled = time.perf_counter(), _compile_clock()["seconds"]
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._counts: defaultdict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def spending(self, on: str) -> Iterator[None]:
        """The time inside the block goes to `on`; what is compiled there goes to `compile`."""
        began, compiled = time.perf_counter(), _compile_clock()["seconds"]
        try:
            yield
        finally:
            self._seconds[on] += time.perf_counter() - began - (_compile_clock()["seconds"] - compiled)

    def count(self, *, texts: float, tokens: float, places: int, flops: float) -> None:
        """Count a step.

        Args:
          texts, tokens: of the batch, all processes together.
          places: tokens and padding.
          flops: of its arithmetic, padding included.
        """
        for name, value in {"texts": texts, "tokens": tokens, "places": places, "flops": flops}.items():
            self._counts[name] += value

    def report(self, event: str, *, step: int) -> str:
        """Write the rates since the last report to the file and the loggers; the same in words, empty without steps."""
        counts, seconds, began, compiled = self._counts, self._seconds, self._report_began, self._compiled
        self._begin_report()
        now = self._report_began
        seconds["compile"] += self._compiled - compiled
        for name, value in seconds.items():
            self._seconds_reported[name] += value
        stepping = now - began - sum(seconds[name] for name in BETWEEN_STEPS)
        if not counts["places"] or stepping <= 0:
            return ""
        values: dict[str, Any] = {
            "texts_per_second": counts["texts"] / stepping,
            "tokens_per_second": counts["tokens"] / stepping,
            "padding_share": 1 - counts["tokens"] / counts["places"],
            "data_wait_share": seconds["data"] / stepping,
            "goodput": max(0.0, 1 - sum(self._seconds_reported.values()) / (now - self._began)),
            "seconds": self._seconds_reported | {"all": now - self._began},
        }
        words = (
            f"{values['texts_per_second']:.0f} texts/s, {values['tokens_per_second']:.0f} tokens/s, "
            f"padding {values['padding_share']:.0%}, waiting for data {values['data_wait_share']:.0%}, "
            f"goodput {values['goodput']:.0%}"
        )
        utilisation = counts["flops"] / stepping / self._peak_flops
        if utilisation <= 1:  # above it, the peak was measured while the device did something else
            values["model_flop_utilisation"] = utilisation
            words += f", utilisation {utilisation:.0%}"
        if self._path is not None:
            with unless_refused(self._path, "write the throughput"), self._path.open("a+b") as stream:
                whole = not stream.tell() or os.pread(stream.fileno(), 1, stream.tell() - 1) == b"\n"
                line = json.dumps({"event": event, "step": step, **values}).encode() + b"\n"
                stream.write(line if whole else b"\n" + line)  # a kill may have cut the line before
        if self._journal is not None:
            self._journal.to_loggers("throughput", step=step, values=values)
        return words

    @functools.cached_property
    def _peak_flops(self) -> float:
        """FLOP/s of all devices, measured on one of them."""
        with self.spending("peak"):
            return jax.device_count() * measured_peak(self._dtype)


@functools.cache
def _compile_clock() -> dict[str, float]:
    """The seconds that jax has spent compiling since the first call, under `seconds`; they continue to count."""
    clock = {"seconds": 0.0}

    def add(event: str, duration_secs: float, **_: str | int) -> None:
        if event in COMPILE_EVENTS:
            clock["seconds"] += duration_secs

    jax.monitoring.register_event_duration_secs_listener(add)
    return clock


@functools.cache
def measured_peak(dtype: Any) -> float:
    """FLOP/s of one device in products of square matrices of random numbers: the best of five.

    Ones would be too easy: accelerators multiply them up to 13 % faster than real data.
    """
    device = jax.local_devices()[0]
    size = PEAK_SIZE.get(device.platform, 8192)
    square = jax.device_put(jax.random.normal(jax.random.key(0), (size, size), dtype), device)
    product = jax.jit(jnp.matmul)
    product(square, square).block_until_ready()
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        product(square, square).block_until_ready()
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


class Profiler:
    """Profiles the devices of the first process, which stand for all: every process runs the same program.

    A run that was stopped inside the range keeps the profile of the steps that it did, and profiles the rest when it is
    resumed. An error is printed and does not end the training.
    """

    def __init__(self, directory: Path = Path(), steps: range = range(0)) -> None:
        """Steps are counted over the whole run from 1."""
        self._directory, self._steps = directory, steps
        self._profiled: list[int] = []
        """The steps of the profile under way; empty: none is."""

    def resume(self, done: int, *, total: int) -> None:
        """Restrict the range to the steps that are left when `done` of `total` are done, and say so."""
        wanted = self._steps
        self._steps = range(max(wanted.start, done + 1), min(wanted.stop, total + 1)) if wanted else wanted
        if self._steps != wanted:
            left = _first_to_last(self._steps) if self._steps else "none"
            processes.say(
                f"profile: of the steps {_first_to_last(wanted)}, {left} left: {done} of {total} steps are done"
            )

    def step(self, step: int) -> AbstractContextManager[Any]:
        """A context for one step, which xprof then shows as one; the first step of the range begins the profile."""
        if step in self._steps and not self._profiled:
            self._try(self._start)
        if step in self._steps:
            self._profiled.append(step)
        return jax.profiler.StepTraceAnnotation("train", step_num=step)

    def _start(self) -> None:
        options = jax.profiler.ProfileOptions()
        # Python's own calls would make it slow and so large that xprof's timeline drops steps.
        options.python_tracer_level = 0
        jax.profiler.start_trace(str(self._directory), profiler_options=options)

    def end_after(self, step: int, arrays: Any) -> None:
        """Write the profile if this was its last step, once the step's `arrays` are computed."""
        if self._profiled and step == self._steps[-1]:
            jax.block_until_ready(arrays)
            self.close()

    def close(self) -> None:
        """Write the profile under way, complete or not; a second one does not begin."""
        if self._profiled and self._try(jax.profiler.stop_trace):
            processes.say(
                f"profile: steps {_first_to_last(self._profiled)} are in {self._directory}; open it with "
                f"`pip install xprof` and `xprof --logdir {self._directory}`"
            )
        self._profiled, self._steps = [], range(0)

    def _try(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except Exception as error:
            self._steps = range(0)
            processes.say(f"profile: not written, because of an error; the run continues: {error}")
            return False
        return True


def _first_to_last(steps: range | list[int]) -> str:
    return f"{steps[0]} to {steps[-1]}"
