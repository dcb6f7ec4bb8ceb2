"""A profile of some steps of a run, for xprof: what host and devices did, and how long each part took."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax


class Profiler:
    """Profiles the devices of the first process, which stand for all: every process runs the same program.

    A run that was stopped inside the range keeps the part it has done, and profiles the rest when it is resumed. What
    goes wrong is said, and ends no training.
    """

    def __init__(
        self, directory: Path | None = None, steps: range = range(0), *, say: Callable[[str], None] = print
    ) -> None:
        """Get ready.

        Args:
          directory: where to write; none: nothing is profiled.
          steps: counted over the whole run from 1.
        """
        self._directory, self._say = directory, say
        self._steps = steps if directory is not None else range(0)
        self._first = 0
        """The first step of the profile under way; 0: none is."""
        self._newest = 0

    def resume(self, done: int, *, total: int) -> None:
        """Say what of the range is out of reach, now that so many of all steps are done."""
        if not self._steps:
            return
        first, last = self._steps[0], self._steps[-1]
        left = range(max(first, done + 1), min(last, total) + 1)
        if not left:
            there = f"the run has {total}" if first > total else f"{done} of {total} are done"
            self._say(
                f"profile: expected steps that are still to come, found {first} to {last}; {there}: none is written"
            )
        elif left != self._steps:
            self._say(f"profile: of steps {first} to {last}, {left[0]} to {left[-1]} are left in this run of {total}")
        self._steps = left

    def step(self, step: int) -> AbstractContextManager[Any]:
        """Around one step, which xprof then shows as one; the first of the range begins the profile."""
        if step not in self._steps:
            return contextlib.nullcontext()
        self._newest = step
        if not self._first:
            self._guarded(self._start)
            if not self._steps:
                return contextlib.nullcontext()
            self._first = step
        return jax.profiler.StepTraceAnnotation("train", step_num=step)

    def _start(self) -> None:
        options = jax.profiler.ProfileOptions()
        # Python's own calls would make it slow and so large that xprof's timeline drops steps.
        options.python_tracer_level = 0
        jax.profiler.start_trace(str(self._directory), profiler_options=options)

    def end_after(self, step: int, arrays: Any) -> None:
        """Write the profile if this was the last step of it, once the step's `arrays` are there."""
        if self._first and step == self._steps[-1]:
            jax.block_until_ready(arrays)
            self.close()

    def close(self) -> None:
        """Write what there is, where the end of the run cuts a profile short."""
        if not self._first:
            return
        first, last, self._first = self._first, self._newest, 0
        self._guarded(jax.profiler.stop_trace)
        if self._steps:
            self._say(
                f"profile: steps {first} to {last} are in {self._directory}; open it with "
                f"`pip install xprof` and `xprof --logdir {self._directory}`"
            )
        self._steps = range(0)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self._steps = range(0)
            self._say(f"profile: nothing is written, after: {error}; the run goes on")
