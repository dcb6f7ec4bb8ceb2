"""Where a run's numbers go beside its journal: TensorBoard, Weights & Biases and MLflow."""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flax.traverse_util import flatten_dict

from fastbert_jax.config import LogTarget, TrainConfig
from fastbert_jax.config_yaml import to_dict, to_yaml
from fastbert_jax.errors import UserError
from fastbert_jax.report.comparison import Comparison
from fastbert_jax.report.tables import render

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
