"""Stand-ins for wandb and mlflow: what they were told, kept as their servers would, across processes."""

from __future__ import annotations

import types
from typing import Any


class Wandb:
    """Its server: runs by their names, each with its rows and the last value of every key."""

    def __init__(self) -> None:
        self.runs: dict[str, Any] = {}
        self.module = types.SimpleNamespace(__file__="wandb.py", init=self.init)

    def init(self, *, id: str | None, resume: str, **given: Any) -> Any:
        assert resume == "allow"
        name = id or f"run{len(self.runs)}"
        if name not in self.runs:
            self.runs[name] = types.SimpleNamespace(id=name, rows=[], summary={}, axes={}, ended=[], inits=[])
        run = self.runs[name]
        run.inits.append(given)
        run.log = lambda values: (run.rows.append(values), run.summary.update(values))
        run.define_metric = lambda names, step_metric: run.axes.update({names: step_metric})
        run.finish = lambda exit_code: run.ended.append(exit_code)
        return run


class Mlflow:
    """Its server: runs by their names, each with every value that it was ever told."""

    def __init__(self) -> None:
        self.runs: dict[str, Any] = {}
        self.module = types.SimpleNamespace(__file__="mlflow.py")
        for name in ("start_run", "log_metrics", "log_params", "log_dict", "log_text", "end_run"):
            setattr(self.module, name, getattr(self, name))

    def start_run(self, *, run_id: str | None, run_name: str | None) -> Any:
        self.active = run_id or f"run{len(self.runs)}"
        run = self.runs.setdefault(
            self.active, types.SimpleNamespace(name=run_name, rows=[], metrics={}, params={}, files={}, ended=[])
        )
        data = types.SimpleNamespace(metrics=dict(run.metrics))
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=self.active), data=data)

    def log_metrics(self, values: dict[str, float], *, run_id: str, step: int = 0) -> None:
        assert all(type(value) is float for value in values.values())
        self.runs[run_id].rows.append(values)
        self.runs[run_id].metrics |= values

    def log_params(self, params: dict[str, Any]) -> None:
        run = self.runs[self.active]
        changed = [key for key, value in params.items() if run.params.get(key, value) != value]
        if changed:
            raise ValueError(f"Changing param values is not allowed: {changed}")
        run.params |= params

    def log_dict(self, values: dict, name: str, run_id: str | None = None) -> None:
        self.runs[run_id or self.active].files[name] = values

    log_text = log_dict

    def end_run(self, status: str) -> None:
        self.runs[self.active].ended.append(status)
