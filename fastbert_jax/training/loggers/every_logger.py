"""The loggers of a run: those that were asked for, opened, told everything, and given up when they fail."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastbert_jax.atomic_files import write_json
from fastbert_jax.config import LogTarget, TrainConfig
from fastbert_jax.errors import UserError
from fastbert_jax.log import status
from fastbert_jax.model.tensor_files import read_json
from fastbert_jax.report.comparison import Comparison
from fastbert_jax.training.loggers.logger import About, Logger, numbers
from fastbert_jax.training.loggers.mlflow import MlflowLogger
from fastbert_jax.training.loggers.tensorboard import TensorBoardLogger
from fastbert_jax.training.loggers.wandb import WandbLogger
from fastbert_jax.training.run_directory import RunDirectory

PACKAGES = {LogTarget.TENSORBOARD: "tensorboardX", LogTarget.WANDB: "wandb", LogTarget.MLFLOW: "mlflow"}
LOGGERS: dict[LogTarget, Callable[[About], Logger]] = {
    LogTarget.TENSORBOARD: TensorBoardLogger,
    LogTarget.WANDB: WandbLogger,
    LogTarget.MLFLOW: MlflowLogger,
}
MEASUREMENTS = ("dev", "throughput")
"""Events that are always written; the others are steps, of which every `log.every`-th is."""


def check_installed(targets: Sequence[LogTarget]) -> None:
    """Import what the loggers need.

    Raises:
      UserError: a package that is not there or cannot be imported.
    """
    for target in targets:
        package = PACKAGES[target]
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


class Loggers:
    """All loggers of a run as one; none until they are opened, which the first process alone does.

    One that fails is said, closed and told no more: training does not end for it, and `metrics.jsonl` has everything.
    """

    def __init__(self) -> None:
        self._open: dict[LogTarget, Logger] = {}
        self._every = 1

    def open(self, config: TrainConfig, run: RunDirectory) -> None:
        """Open those that `config.log` asks for.

        Raises:
          UserError: one that this run was never logged to cannot be opened. For one that it was, that is only said.
        """
        self._every = config.log.every
        known = read_json(run.loggers) if run.loggers.is_file() else {}
        for target in config.log.to:
            about = About(directory=run.path, config=config, identity=known.get(target.value, ""))
            try:
                self._open[target] = LOGGERS[target](about)
            except Exception as error:
                if target.value not in known:
                    raise UserError(f"--log.to {target.value}: expected to open it, found: {error}") from error
                _say_given_up(target, error)
        names = {target.value: logger.identity for target, logger in self._open.items()}
        if names.items() - known.items():
            write_json(run.loggers, known | names)

    def resume(self, step: int) -> None:
        """Training begins, or goes on, after this step."""
        self._all(lambda logger: logger.resume(step))

    def write(self, event: str, values: Mapping[str, Any], *, step: int) -> None:
        """The numbers among the values of an event of the journal."""
        if self._open and (event in MEASUREMENTS or step % self._every == 0):
            flat = numbers(event, values)
            self._all(lambda logger: logger.write(event, flat, step=step))

    def conclude(self, comparison: Comparison) -> None:
        """The run is done, and measured."""
        self._all(lambda logger: logger.conclude(comparison))

    def close(self) -> None:
        """Let all go."""
        self._all(lambda logger: logger.close())
        self._open.clear()

    def _all(self, call: Callable[[Logger], None]) -> None:
        for target, logger in list(self._open.items()):
            try:
                call(logger)
            except Exception as error:
                del self._open[target]
                _say_given_up(target, error)
                with contextlib.suppress(Exception):
                    logger.close()


def _say_given_up(target: LogTarget, error: Exception) -> None:
    status(
        f"log.to {target.value}: nothing more goes there, after {type(error).__name__}: {error}\n"
        "The run goes on, and metrics.jsonl has everything."
    )
