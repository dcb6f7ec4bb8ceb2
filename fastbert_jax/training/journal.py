"""The journal of a run, `metrics.jsonl`: every step and every measurement, which its loggers get too."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import operator
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import jax

from fastbert_jax import processes
from fastbert_jax.atomic_files import MAKE_ROOM, atomic_file, put_aside, read_file, unless_refused, write_json
from fastbert_jax.config import LogTarget, TrainConfig
from fastbert_jax.errors import UserError
from fastbert_jax.log import status
from fastbert_jax.report.comparison import Comparison
from fastbert_jax.training.loggers import LOGGERS, Logger

DEV_EVENT = "dev"
"""The event of a measurement on the dev set; a training step's is its phase's name."""
MEASUREMENTS = (DEV_EVENT, "throughput")
"""Events that loggers always get; the others are steps, of which they get every `log.every`-th."""
IDENTITIES = "loggers.json"
"""Beside the journal: the names of the run at its loggers, by which they resume it."""
MOST_DEV_POINTS = 300
"""Measurements that `dev_points` gives; of more, some that are spread evenly, the last one always among them."""


def dev_points(metrics: Path) -> list[dict[str, Any]]:
    """The measurements of the dev set in `metrics.jsonl`, in the order of their steps; none where there is no file.

    Lines that cannot be read are left out.

    Each holds its `step` over the whole run, the `phase` of the training step before it, and for each layer the
    `accuracy` and the cross entropy (`loss`) of its exit, None where it has none.
    """
    if not metrics.is_file():
        return []
    points, phase = [], ""
    for values in filter(None, map(_event_of, metrics.read_bytes().splitlines())):
        if values["event"] != DEV_EVENT:
            phase = values["event"]
        elif all(isinstance(values.get(key), list) for key in ("accuracy", "loss")):
            points.append({"phase": phase} | {key: values[key] for key in ("step", "accuracy", "loss")})
    every = -(-len(points) // MOST_DEV_POINTS) or 1
    return points[::-1][::every][::-1]


def loss_points(metrics: Path) -> list[dict[str, Any]]:
    """The mean `loss` of the training texts over a few steps each, the last of which is `step`, by `phase`.

    Each phase has its own loss, as its terms give it. There are about `MOST_DEV_POINTS` means, or fewer.
    """
    if not metrics.is_file():
        return []
    events = filter(None, map(_event_of, metrics.read_bytes().splitlines()))
    steps = [one for one in events if one["event"] not in MEASUREMENTS and isinstance(one.get("loss"), int | float)]
    every = -(-len(steps) // MOST_DEV_POINTS) or 1
    points = []
    for phase, these in itertools.groupby(steps, key=operator.itemgetter("event")):
        part = list(these)
        for few in (part[start : start + every] for start in range(0, len(part), every)):
            loss = statistics.fmean(one["loss"] for one in few)
            points.append({"step": few[-1]["step"], "phase": phase, "loss": loss})
    return points


class Journal:
    """Writes the events of a run to `metrics.jsonl` and its loggers.

    Of several processes only the first one writes. Each event has its `step`, counted over the whole run. A resumed run
    forgets the steps that it does again, so that its journal reads as if it had never stopped. A logger that fails is
    disabled with a warning; the run continues, and `metrics.jsonl` has everything.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None
        self._loggers: dict[LogTarget, Logger] = {}
        self._every, self._done = 1, False
        self._errors = functools.partial(unless_refused, path, "write the journal", remedy=MAKE_ROOM)

    def open_loggers(self, config: TrainConfig) -> None:
        """Open the loggers of `config.log`; only the first process calls this.

        Raises:
          UserError: one cannot be opened that this run has not used before. One that it has is disabled.
        """
        self._every = config.log.every
        directory, identities = self._path.parent, self._path.with_name(IDENTITIES)
        known = _identities(identities)
        for target in config.log.to:
            try:
                self._loggers[target] = LOGGERS[target](directory, config, known.get(target.value, ""))
            except Exception as error:
                if target.value not in known:
                    raise UserError(f"--log.to {target.value}: expected to open it, found: {error}") from error
                _warn_disabled(target, error)
        opened = {target.value: logger.identity for target, logger in self._loggers.items()}
        if opened.items() - known.items():
            write_json(identities, known | opened)

    def resume(self, step: int) -> None:
        """Begin to write after the events up to `step`, which are kept; 0: none.

        Raises:
          UserError: the file cannot be read or written.
        """
        if not processes.is_first():
            return
        with self._errors():
            if self._path.exists():
                self._keep_up_to(step)
            self._file = self._path.open("a", buffering=1)
        self._each_logger(lambda logger: logger.resume(step))

    def _keep_up_to(self, step: int) -> None:
        """Forget later events; put a file aside that lacks earlier ones, and keep those that it has."""
        lines = self._path.read_bytes().splitlines()
        events = [_event_of(line) for line in lines]
        kept = [line for line, event in zip(lines, events, strict=True) if event and event["step"] <= step]
        steps = {event["step"] for event in events if event and event["event"] != DEV_EVENT}
        lost = len(set(range(1, step + 1)) - steps)
        if lost or None in events[:-1]:  # a kill cuts the last line, of a step that is done again
            problem = f"{events.count(None)} lines cannot be read, {lost} of {step} steps are missing"
            put_aside(self._path, problem, "; what can be read is kept")
        with atomic_file(self._path, "wb") as stream:
            stream.writelines(line + b"\n" for line in kept)

    def log(self, event: str, *, step: int, values: Mapping[str, Any]) -> None:
        """Write one event.

        Raises:
          UserError: the file cannot be written.
        """
        if self._file is not None:
            with self._errors():
                self._file.write(json.dumps({"event": event, "step": step, **values}) + "\n")
        self.to_loggers(event, step=step, values=values)

    def to_loggers(self, event: str, *, step: int, values: Mapping[str, Any]) -> None:
        """Write the numbers of an event to the loggers alone."""
        if self._loggers and (event in MEASUREMENTS or step % self._every == 0):
            numbers = _numbers(event, values)
            self._each_logger(lambda logger: logger.write(event, numbers, step=step))

    def conclude(self, comparison: Comparison) -> None:
        """Write the measurements of a run that is done to the loggers."""
        self._each_logger(lambda logger: logger.conclude(comparison))
        self._done = True

    def close(self) -> None:
        """Close the file and the loggers."""
        if self._file is not None:
            self._file.close()
        self._each_logger(lambda logger: logger.close(done=self._done))
        self._loggers.clear()

    def _each_logger(self, call: Callable[[Logger], None]) -> None:
        for target, logger in list(self._loggers.items()):
            try:
                call(logger)
            except Exception as error:
                del self._loggers[target]
                _warn_disabled(target, error)
                with contextlib.suppress(Exception):
                    logger.close(done=False)


def _identities(path: Path) -> dict[str, str]:
    """The names of the run at its loggers; none where the file cannot be read, which is then put aside."""
    try:
        return {key: str(name) for key, name in dict(json.loads(read_file(path))).items()}
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError, RecursionError) as error:
        put_aside(path, f"cannot be read: {error}", "; the loggers begin a new run")
    return {}


def _warn_disabled(target: LogTarget, error: Exception) -> None:
    status(
        f"warning: --log.to {target.value} is disabled after {type(error).__name__}: {error}\n"
        "The run continues, and metrics.jsonl has everything."
    )


def _event_of(line: bytes) -> dict[str, Any] | None:
    """The event in a line of the journal; None where there is none, as in a line that a kill cut."""
    try:
        values = json.loads(line)
        return values if isinstance(values["event"], str) and type(values["step"]) is int else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _numbers(event: str, values: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an event by flat names; the elements of a list are layers: `dev/accuracy/layer_03`."""
    numbers = {}
    for path, value in jax.tree.leaves_with_path(dict(values)):
        if isinstance(value, int | float):
            names = (key.key if isinstance(key, jax.tree_util.DictKey) else f"layer_{key.idx + 1:02}" for key in path)
            numbers["/".join((event, *names))] = float(value)
    return numbers
