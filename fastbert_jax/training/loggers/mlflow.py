"""MLflow: one run there, resumed under its own name. MLFLOW_TRACKING_URI and the like say where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastbert_jax.config_yaml import to_dict, to_flat
from fastbert_jax.report.comparison import Comparison
from fastbert_jax.report.tables import render
from fastbert_jax.training.loggers.logger import About, last_step, test_numbers


class MlflowLogger:
    """Metrics by step, settings as parameters, the comparison as artifacts.

    MLflow keeps every value that it was ever told: what it has of the run is asked when it is opened, and left out.
    """

    def __init__(self, about: About) -> None:
        import mlflow

        self._mlflow: Any = mlflow
        run = mlflow.start_run(run_id=about.identity or None, run_name=None if about.identity else about.name)
        self.identity = run.info.run_id
        self._last: dict[str, float] = run.data.metrics
        self._concluded = False
        if not about.identity:  # what it has been told of a parameter stays
            mlflow.log_params(to_flat(about.config))
        mlflow.log_dict(to_dict(about.config), "config.yaml")

    def resume(self, step: int) -> None:
        pass

    def write(self, event: str, values: Mapping[str, float], *, step: int) -> None:
        key = last_step(event)
        if step > self._last.get(key, 0):
            self._mlflow.log_metrics({**values, key: float(step)}, step=step, run_id=self.identity)

    def conclude(self, comparison: Comparison) -> None:
        self._mlflow.log_metrics(test_numbers(comparison), run_id=self.identity)
        self._mlflow.log_dict(comparison.to_json(), "comparison.json", run_id=self.identity)
        self._mlflow.log_text(render(comparison), "comparison.txt", run_id=self.identity)
        self._concluded = True

    def close(self) -> None:
        self._mlflow.end_run("FINISHED" if self._concluded else "KILLED")
