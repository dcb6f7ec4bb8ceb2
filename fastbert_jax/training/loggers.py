"""Where a run's numbers go: `metrics.jsonl`, which is the journal, and TensorBoard, Weights & Biases and MLflow."""

from __future__ import annotations

import contextlib
import importlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from flax.traverse_util import flatten_dict

from fastbert_jax import processes
from fastbert_jax.atomic_files import atomic_file, put_aside, read_file, write_json
from fastbert_jax.config import LogTarget, TrainConfig
from fastbert_jax.config_yaml import to_dict, to_yaml
from fastbert_jax.errors import UserError
from fastbert_jax.log import status
from fastbert_jax.report.comparison import Comparison
from fastbert_jax.report.tables import render

DEV_EVENT = "dev"
"""The event of a measurement on the dev set; a training step's is its phase's name."""
MEASUREMENTS = (DEV_EVENT, "throughput")
"""Events that loggers always get; the others are steps, of which they get every `log.every`-th."""
IDENTITIES = "loggers.json"
"""Beside the journal: the names of the run at its loggers, by which they resume it."""
FLUSH_SECONDS = 10
"""A kill may lose newer events of TensorBoard; tensorboardX waits for the disk at each flush."""


class Logger:
    """A place for numbers outside the journal. Any method may raise; the logger is then disabled.

    A resumed run repeats steps that an earlier process has logged, with the same values. A logger forgets the earlier
    ones, or skips the repeated ones, so that each step is there once.
    """

    package: str
    """The Python package that it needs."""
    identity = ""
    """The name of the run at the logger, by which a later process resumes it; empty: none is needed."""

    def __init__(self, directory: Path, config: TrainConfig, identity: str) -> None:
        """Open the logger for the run in a directory, with the identity that it had before."""

    def resume(self, step: int) -> None:
        """Training begins or continues after `step`."""

    def write(self, event: str, numbers: Mapping[str, float], *, step: int) -> None:
        """Numbers of one event, by names that begin with `EVENT/`; the steps of an event rise."""

    def conclude(self, comparison: Comparison) -> None:
        """The run is done and measured, which may happen again to a run that is done."""

    def close(self, *, done: bool) -> None:
        """Close the logger of a run that is done, or was stopped."""


class _TensorBoard(Logger):
    """Event files in `RUN/tensorboard`: scalars by step, the settings and the comparison as text.

    The file of a resumed run begins with a mark, at which TensorBoard forgets later steps of the files before. Events
    are written at once: tensorboardX's own writer has a thread that ends when the disk is full, and then blocks.
    """

    package = "tensorboardX"

    def __init__(self, directory: Path, config: TrainConfig, identity: str) -> None:
        from tensorboardX.event_file_writer import EventsWriter

        self._config, self._flushed = config, 0.0
        (directory / "tensorboard").mkdir(exist_ok=True)
        # tensorboardX's own suffix is the second, which two processes may share.
        self._writer: Any = EventsWriter(str(directory / "tensorboard" / "events"), f".{time.time_ns()}")

    def resume(self, step: int) -> None:
        from tensorboardX.proto.event_pb2 import SessionLog

        self._add(step=step + 1, session_log=SessionLog(status=SessionLog.START))
        self._add_text("settings", to_yaml(self._config), step=step)

    def write(self, event: str, numbers: Mapping[str, float], *, step: int) -> None:
        from tensorboardX.proto.summary_pb2 import Summary

        self._add(step=step, summary=Summary(value=[Summary.Value(tag=k, simple_value=x) for k, x in numbers.items()]))

    def conclude(self, comparison: Comparison) -> None:
        self._add_text("comparison", render(comparison), step=0)

    def close(self, *, done: bool) -> None:
        self._writer.close()

    def _add_text(self, name: str, text: str, *, step: int) -> None:
        from tensorboardX import summary

        self._add(step=step, summary=summary.text(name, f"```\n{text}\n```"))

    def _add(self, **event: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        now = time.time()
        self._writer.write_event(Event(wall_time=now, **event))
        if now - self._flushed > FLUSH_SECONDS:
            self._writer.flush()
            self._flushed = now


class _Wandb(Logger):
    """A run of Weights & Biases; WANDB_MODE, WANDB_PROJECT and the like say where.

    Each event has its own axis of steps, as W&B's own can neither go back nor take a step twice. Steps that W&B already
    has are skipped. With WANDB_MODE=offline it does not say which: the directory of a resumed run then repeats some.
    """

    package = "wandb"

    def __init__(self, directory: Path, config: TrainConfig, identity: str) -> None:
        import wandb

        self._run = wandb.init(
            id=identity or None,
            resume="allow",
            reinit="create_new",
            dir=str(directory),
            name=directory.resolve().name,
            config=to_dict(config),
            allow_val_change=True,
        )
        self.identity = self._run.id
        self._last: dict[str, float] = {}

    def write(self, event: str, numbers: Mapping[str, float], *, step: int) -> None:
        key = f"{event}/step"
        if event not in self._last:
            self._run.define_metric(f"{event}/*", step_metric=key)
            self._last[event] = self._run.summary.get(key) or 0
        if step > self._last[event]:
            self._run.log({**numbers, key: step})

    def conclude(self, comparison: Comparison) -> None:
        self._run.summary.update(_test_numbers(comparison))

    def close(self, *, done: bool) -> None:
        self._run.finish(exit_code=0 if done else 1)


class _Mlflow(Logger):
    """A run of MLflow; MLFLOW_TRACKING_URI and the like say where.

    MLflow keeps every value that it gets: it is asked for its last steps when it is opened, and they are skipped.
    """

    package = "mlflow"

    def __init__(self, directory: Path, config: TrainConfig, identity: str) -> None:
        import mlflow

        self._mlflow: Any = mlflow
        run = mlflow.start_run(run_id=identity or None, run_name=None if identity else directory.resolve().name)
        self.identity = run.info.run_id
        self._last: dict[str, float] = run.data.metrics
        if not identity:  # MLflow refuses another value for a parameter that it has
            mlflow.log_params(flatten_dict(to_dict(config), sep="."))
        mlflow.log_dict(to_dict(config), "config.yaml")

    def write(self, event: str, numbers: Mapping[str, float], *, step: int) -> None:
        key = f"{event}/step"
        if step > self._last.get(key, 0):
            self._mlflow.log_metrics({**numbers, key: float(step)}, step=step, run_id=self.identity)

    def conclude(self, comparison: Comparison) -> None:
        self._mlflow.log_metrics(_test_numbers(comparison), run_id=self.identity)
        self._mlflow.log_dict(comparison.to_json(), "comparison.json", run_id=self.identity)
        self._mlflow.log_text(render(comparison), "comparison.txt", run_id=self.identity)

    def close(self, *, done: bool) -> None:
        self._mlflow.end_run("FINISHED" if done else "KILLED")


LOGGERS = {LogTarget.TENSORBOARD: _TensorBoard, LogTarget.WANDB: _Wandb, LogTarget.MLFLOW: _Mlflow}


def check_installed(targets: Sequence[LogTarget]) -> None:
    """Import what the loggers need.

    Raises:
      UserError: a package that is not installed or cannot be imported.
    """
    for target in targets:
        package = LOGGERS[target].package
        try:
            # wandb leaves directories of its own name, which Python imports as empty packages.
            found = "a directory of that name" if importlib.import_module(package).__file__ is None else ""
        except ImportError as error:
            found = str(error)
        if found:
            raise UserError(
                f"--log.to {target.value}: expected the package {package}, found: {found}; "
                f"install it with `pip install {package}`"
            )


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


class Journal:
    """Writes the events of a run to `metrics.jsonl` and its loggers, and messages to the terminal.

    Of several processes only the first one writes. Each event has its `step`, counted over the whole run. A resumed run
    forgets the steps that it does again, so that its journal reads as if it had never stopped. A logger that fails is
    disabled with a warning; the run continues, and `metrics.jsonl` has everything.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None
        self._loggers: dict[LogTarget, Logger] = {}
        self._every, self._done = 1, False

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
            aside = put_aside(self._path)
            self.say(
                f"warning: {self._path} was damaged, and is now {aside.name}: {events.count(None)} lines cannot be "
                f"read, {lost} of {step} steps are missing; what can be read is kept"
            )
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

    def say(self, words: str) -> None:
        """Print a message."""
        if processes.is_first():
            status(words)

    def close(self) -> None:
        """Close the file and the loggers."""
        if self._file is not None:
            self._file.close()
        self._each_logger(lambda logger: logger.close(done=self._done))
        self._loggers.clear()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self._path}: expected to write the journal, found: {error}\n"
                "Make room or mend the directory, then run the same command again."
            ) from error

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
        return {}
    except (OSError, ValueError, TypeError, RecursionError) as error:
        aside = put_aside(path)
        status(f"warning: {path} cannot be read: {error}\nIt is now {aside.name}; the loggers begin a new run")
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


def _numbers(name: str, value: Any) -> dict[str, float]:
    """The numbers in a journal's value by flat names; the elements of a list are layers: `dev/accuracy/layer_03`."""
    match value:
        case Mapping():
            return {key: x for part, inner in value.items() for key, x in _numbers(f"{name}/{part}", inner).items()}
        case list():
            layers = {f"layer_{layer:02}": inner for layer, inner in enumerate(value, start=1)}
            return _numbers(name, layers)
        case int() | float():
            return {name: float(value)}
    return {}


def _test_numbers(comparison: Comparison) -> dict[str, float]:
    """What a comparison measured, by names such as `test/batches of 8 texts/cascade/speed 0.5/accuracy`."""
    return {
        f"test/batches of {size.batches}/{row.mode}/speed {row.speed:g}/{name}": value
        for size in comparison.batch_sizes
        for row in size.rows
        for name, value in {
            "accuracy": row.accuracy,
            "mean_depth": row.mean_depth,
            "paper_speedup": row.paper_speedup,
            "true_speedup": row.true_speedup,
            "speedup": row.speedup.median,
        }.items()
    }
