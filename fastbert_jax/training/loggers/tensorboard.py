"""TensorBoard: event files in `RUN/tensorboard`, written by tensorboardX."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from fastbert_jax.config_yaml import to_yaml
from fastbert_jax.report.comparison import Comparison
from fastbert_jax.report.tables import render
from fastbert_jax.training.loggers.logger import About

FLUSH_SECONDS = 10
"""What is newer may be lost in a kill; tensorboardX waits for the disk whenever it flushes."""


class TensorBoardLogger:
    """Scalars by step; settings and the comparison as text.

    A process that goes on after a step begins a file with a mark, at which TensorBoard forgets what other files say of
    later steps. Events are written here and now: tensorboardX's own writer has a thread that dies of a full disk and
    lets its caller wait for ever.
    """

    identity = ""

    def __init__(self, about: About) -> None:
        self._about = about
        self._writer: Any = None
        self._flushed = 0.0

    def resume(self, step: int) -> None:
        from tensorboardX.proto.event_pb2 import SessionLog

        self._add(step=step + 1, session_log=SessionLog(status=SessionLog.START))
        self._add_text("settings", to_yaml(self._about.config), step=step)

    def write(self, event: str, values: Mapping[str, float], *, step: int) -> None:
        from tensorboardX.proto.summary_pb2 import Summary

        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._add(step=step, summary=Summary(value=scalars))

    def conclude(self, comparison: Comparison) -> None:
        self._add_text("comparison", render(comparison), step=0)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _add_text(self, name: str, text: str, *, step: int) -> None:
        from tensorboardX import summary

        self._add(step=step, summary=summary.text(name, f"```\n{text}\n```"))

    def _add(self, **event: Any) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event

        if self._writer is None:
            directory = self._about.directory / "tensorboard"
            directory.mkdir(exist_ok=True)
            # Its own suffix is the second, which two processes may share.
            self._writer = EventsWriter(str(directory / "events"), f".{time.time_ns()}")
        now = time.time()
        self._writer.write_event(Event(wall_time=now, **event))
        if now - self._flushed > FLUSH_SECONDS:
            self._writer.flush()
            self._flushed = now
