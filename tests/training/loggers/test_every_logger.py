"""The loggers of a run: each step is there once, whatever stopped it, and no logger stops a training."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

from fastbert_jax.config import LogConfig, LogTarget, TrainConfig
from fastbert_jax.errors import UserError
from fastbert_jax.training.journal import Journal
from fastbert_jax.training.loggers.every_logger import Loggers, check_installed
from fastbert_jax.training.run_directory import RunDirectory
from tests.report.comparisons import COMPARISON
from tests.training.loggers.backends import Mlflow, Wandb

CONFIG = TrainConfig(log=LogConfig(to=(LogTarget.WANDB, LogTarget.MLFLOW)))


@pytest.fixture
def backends(monkeypatch: pytest.MonkeyPatch) -> tuple[Wandb, Mlflow]:
    wandb, mlflow = Wandb(), Mlflow()
    monkeypatch.setitem(sys.modules, "wandb", wandb.module)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "mlflow", mlflow.module)  # type: ignore[arg-type]
    return wandb, mlflow


def process(
    run: RunDirectory, *, resumed_at: int, until: int, config: TrainConfig = CONFIG, done: bool = False
) -> None:
    """One process of a run: steps, and dev after every second one."""
    loggers = Loggers()
    loggers.open(config, run)
    journal = Journal(run.metrics, loggers)
    journal.resume(resumed_at)
    for step in range(resumed_at + 1, until + 1):
        values = {"loss": step / 10, "terms": {"kl": [0.5, step]}, "words": "not a number"}
        journal.log("distil", step=step, values=values)
        if step % 2 == 0:
            journal.log("dev", step=step, values={"accuracy": [0.25, 1.0]})
    journal.close()
    if done:
        loggers.conclude(COMPARISON)
    loggers.close()


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    (tmp_path / "reviews").mkdir()
    return RunDirectory(tmp_path / "reviews")


def test_a_run_that_goes_on_from_an_earlier_step_is_one_run_with_every_step_once(run, backends):
    wandb, mlflow = backends
    process(run, resumed_at=0, until=5)
    changed = dataclasses.replace(CONFIG, profile="1:2")  # settings that may change, which MLflow would refuse
    process(run, resumed_at=2, until=6, config=changed, done=True)
    assert list(wandb.runs) == list(mlflow.runs) == ["run0"]
    for told in (wandb.runs["run0"], mlflow.runs["run0"]):
        steps = [row["distil/step"] for row in told.rows if "distil/step" in row]
        assert steps == [1, 2, 3, 4, 5, 6]
        assert [row["dev/step"] for row in told.rows if "dev/step" in row] == [2, 4, 6]
        sixth = next(row for row in told.rows if row.get("distil/step") == 6)
        assert sixth == {
            "distil/loss": 0.6,
            "distil/terms/kl/layer_01": 0.5,
            "distil/terms/kl/layer_02": 6.0,
            "distil/step": 6,
        }
    assert wandb.runs["run0"].axes == {"distil/*": "distil/step", "dev/*": "dev/step"}
    assert (wandb.runs["run0"].ended, mlflow.runs["run0"].ended) == ([1, 0], ["KILLED", "FINISHED"])


def test_settings_and_the_comparison_have_their_places(run, backends):
    wandb, mlflow = backends
    process(run, resumed_at=0, until=1, done=True)
    told = wandb.runs["run0"]
    assert told.inits[0]["config"]["distil"]["epochs"] == 5 and told.inits[0]["name"] == "reviews"
    name = "test/batches of 2048 tokens/bucketed/speed 0.5"
    assert (told.summary[f"{name}/accuracy"], told.summary[f"{name}/speedup"]) == (0.9651, 2.4)
    [header, first, *_] = told.summary["comparison"]
    assert dict(zip(header, first, strict=True))["batches"] == "1 text"
    kept = mlflow.runs["run0"]
    assert (kept.params["distil.epochs"], kept.name, kept.metrics[f"{name}/speedup"]) == (5, "reviews", 2.4)
    assert kept.files["comparison.json"]["texts"] == 2189 and "bucketed" in kept.files["comparison.txt"]


def test_only_every_so_many_steps_are_written_but_all_measurements(run, backends):
    config = dataclasses.replace(CONFIG, log=LogConfig(to=(LogTarget.MLFLOW,), every=3))
    process(run, resumed_at=0, until=7, config=config)
    rows = backends[1].runs["run0"].rows
    assert [row["distil/step"] for row in rows if "distil/step" in row] == [3, 6]
    assert [row["dev/step"] for row in rows if "dev/step" in row] == [2, 4, 6]
    assert len(run.metrics.read_text().splitlines()) == 10 and not backends[0].runs


def test_a_logger_that_fails_is_said_once_and_the_others_go_on(run, backends, monkeypatch, capsys):
    wandb, mlflow = backends

    def log_metrics(values: dict, *, run_id: str, step: int = 0) -> None:
        if step == 2:
            raise ConnectionError("the server is gone")
        mlflow.runs[run_id].rows.append(values)

    monkeypatch.setattr(mlflow.module, "log_metrics", log_metrics)
    process(run, resumed_at=0, until=4, done=True)
    printed = capsys.readouterr().out
    assert printed.count("log.to mlflow: nothing more goes there, after ConnectionError: the server is gone") == 1
    assert len(mlflow.runs["run0"].rows) == 1 and mlflow.runs["run0"].ended == ["KILLED"]
    assert len(wandb.runs["run0"].rows) == 4 + 2 + 1
    assert len(run.metrics.read_text().splitlines()) == 6


def test_one_that_cannot_be_opened_stops_a_new_run_and_not_one_that_goes_on(run, backends, monkeypatch, capsys):
    def init(**_: object) -> None:
        raise RuntimeError("api_key not configured")

    works = backends[0].module.init
    monkeypatch.setattr(backends[0].module, "init", init)
    with pytest.raises(UserError, match="--log.to wandb: expected to open it, found: api_key not configured"):
        process(run, resumed_at=0, until=1)
    monkeypatch.setattr(backends[0].module, "init", works)
    process(run, resumed_at=0, until=2)
    monkeypatch.setattr(backends[0].module, "init", init)
    process(run, resumed_at=2, until=3, done=True)
    assert "log.to wandb: nothing more goes there, after RuntimeError: api_key" in capsys.readouterr().out
    assert backends[1].runs["run0"].ended[-1] == "FINISHED"
    monkeypatch.setattr(backends[0].module, "init", works)
    process(run, resumed_at=2, until=3)
    assert list(backends[0].runs) == ["run0"]  # the name outlives a process that did without


def test_a_package_that_is_missing_or_only_a_directory_is_named_with_the_command(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "mlflow", None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="--log.to mlflow: expected the package mlflow, found: .*`pip install mlflow`"):
        check_installed((LogTarget.MLFLOW,))
    monkeypatch.delitem(sys.modules, "mlflow")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    (tmp_path / "mlflow").mkdir()
    with pytest.raises(UserError, match="found: a directory of that name; install it with `pip install mlflow`"):
        check_installed((LogTarget.MLFLOW,))


def test_the_same_place_twice_is_refused():
    with pytest.raises(UserError, match="log.to: expected each target once, found"):
        LogConfig(to=(LogTarget.WANDB, LogTarget.WANDB))
