"""Weights & Biases: one run there, resumed under its own name. WANDB_MODE, WANDB_PROJECT and the like say where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastbert_jax.config_yaml import to_dict
from fastbert_jax.report.comparison import Comparison
from fastbert_jax.training.loggers.logger import About, last_step, test_numbers

COLUMNS = ("mode", "speed", "accuracy", "mean_depth", "paper_speedup", "true_speedup")


class WandbLogger:
    """Every kind of event has its own axis of steps, since W&B's own can neither go back nor take a step twice.

    What W&B has of the run is asked when it is opened. With WANDB_MODE=offline nobody knows: a resumed run's second
    directory then repeats steps of the first one, with the same values at the same places.
    """

    def __init__(self, about: About) -> None:
        import wandb

        self._wandb: Any = wandb
        self._run = wandb.init(
            id=about.identity or None,
            resume="allow",
            reinit="create_new",
            dir=str(about.directory),
            name=about.name,
            config=to_dict(about.config),
            allow_val_change=True,
        )
        self.identity = self._run.id
        self._last: dict[str, float] = {}
        self._concluded = False

    def resume(self, step: int) -> None:
        pass

    def write(self, event: str, values: Mapping[str, float], *, step: int) -> None:
        key = last_step(event)
        if event not in self._last:
            self._run.define_metric(f"{event}/*", step_metric=key)
            self._last[event] = self._run.summary.get(key) or 0
        if step > self._last[event]:
            self._run.log({**values, key: step})

    def conclude(self, comparison: Comparison) -> None:
        rows = [
            [size.batches, *(getattr(row, column) for column in COLUMNS), row.speedup.median]
            for size in comparison.batch_sizes
            for row in size.rows
        ]
        self._run.log({"comparison": self._wandb.Table(columns=["batches", *COLUMNS, "speedup"], data=rows)})
        self._run.summary.update(test_numbers(comparison))
        self._concluded = True

    def close(self) -> None:
        self._run.finish(exit_code=0 if self._concluded else 1)
