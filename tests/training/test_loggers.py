"""The loggers of a run: each step is there once, whatever stopped it, and no logger stops a training."""

from __future__ import annotations

import dataclasses
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

from fastbert_jax.config import DistilConfig, LogConfig, LogTarget
from fastbert_jax.errors import UserError
from fastbert_jax.recipes import fastbert
from fastbert_jax.training.journal import Journal
from fastbert_jax.training.loggers import LOGGERS, check_installed
from tests.report.comparisons import COMPARISON
from tests.training.logger_backends import Mlflow, Wandb

CONFIG = fastbert.Settings(distil=DistilConfig(epochs=5), log=LogConfig(to=(LogTarget.WANDB, LogTarget.MLFLOW)))


@pytest.fixture
def backends(monkeypatch: pytest.MonkeyPatch) -> tuple[Wandb, Mlflow]:
    wandb, mlflow = Wandb(), Mlflow()
    monkeypatch.setitem(sys.modules, "wandb", wandb.module)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "mlflow", mlflow.module)  # type: ignore[arg-type]
    return wandb, mlflow


def process(run: Path, *, resumed_at: int, until: int, config: fastbert.Settings = CONFIG, done: bool = False) -> None:
    """One process of a run: steps, and dev after every second one."""
    journal = Journal(run / "metrics.jsonl")
    journal.open_loggers(config)
    journal.resume(resumed_at)
    for step in range(resumed_at + 1, until + 1):
        values = {"loss": step / 10, "terms": {"kl": [0.5, step]}, "words": "not a number"}
        journal.log("distil", step=step, values=values)
        if step % 2 == 0:
            journal.log("dev", step=step, values={"accuracy": [0.25, 1.0]})
    if done:
        journal.conclude(COMPARISON)
    journal.close()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "reviews").mkdir()
    return tmp_path / "reviews"


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
    assert told.summary["test/batches of 1 text/bucketed/speed 0.5/paper_speedup"] > 1
    kept = mlflow.runs["run0"]
    assert (kept.params["distil.epochs"], kept.name, kept.metrics[f"{name}/speedup"]) == (5, "reviews", 2.4)
    assert kept.files["comparison.json"]["texts"] == 2189 and "bucketed" in kept.files["comparison.txt"]


def test_only_every_so_many_steps_are_written_but_all_measurements(run, backends):
    config = dataclasses.replace(CONFIG, log=LogConfig(to=(LogTarget.MLFLOW,), every=3))
    process(run, resumed_at=0, until=7, config=config)
    rows = backends[1].runs["run0"].rows
    assert [row["distil/step"] for row in rows if "distil/step" in row] == [3, 6]
    assert [row["dev/step"] for row in rows if "dev/step" in row] == [2, 4, 6]
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 10 and not backends[0].runs


def test_a_logger_that_fails_is_disabled_with_one_warning_and_the_others_go_on(run, backends, monkeypatch, capsys):
    wandb, mlflow = backends

    def log_metrics(values: dict, *, run_id: str, step: int = 0) -> None:
        if step == 2:
            raise ConnectionError("the server is gone")
        mlflow.runs[run_id].rows.append(values)

    monkeypatch.setattr(mlflow.module, "log_metrics", log_metrics)
    process(run, resumed_at=0, until=4, done=True)
    printed = capsys.readouterr().out
    assert printed.count("warning: --log.to mlflow is disabled after ConnectionError: the server is gone") == 1
    assert len(mlflow.runs["run0"].rows) == 1 and mlflow.runs["run0"].ended == ["KILLED"]
    assert len(wandb.runs["run0"].rows) == 4 + 2
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 6


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
    assert "--log.to wandb is disabled after RuntimeError: api_key" in capsys.readouterr().out
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


def events_of(directory: Path) -> list[Any]:
    """The events of all files, in TensorBoard's order; a record is its length, a checksum, its bytes, a checksum."""
    from tensorboardX.proto.event_pb2 import Event

    events = []
    for path in sorted((directory / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            events.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return events


def shown(directory: Path) -> dict[str, dict[int, float]]:
    """Scalars by name and step as TensorBoard shows them: a start forgets what was told of its step and later ones."""
    found: dict[str, dict[int, float]] = {}
    for event in events_of(directory):
        if event.HasField("session_log"):
            assert event.session_log.status == 1  # START
            found = {tag: {step: x for step, x in steps.items() if step < event.step} for tag, steps in found.items()}
        for value in event.summary.value:
            if value.HasField("simple_value"):
                assert event.step not in found.setdefault(value.tag, {})
                found[value.tag][event.step] = value.simple_value
    return found


def texts_of(directory: Path) -> dict[str, str]:
    values = [value for event in events_of(directory) for value in event.summary.value]
    return {
        value.tag: value.tensor.string_val[0].decode() for value in values if value.metadata.plugin_data.plugin_name
    }


def tensorboard(directory: Path) -> Any:
    pytest.importorskip("tensorboardX")
    return LOGGERS[LogTarget.TENSORBOARD](directory, fastbert.Settings(seed=7), "")


def tensorboard_process(
    directory: Path, *, resumed_at: int, until: int, shift: float = 0.0, done: bool = False
) -> None:
    logger = tensorboard(directory)
    logger.resume(resumed_at)
    for step in range(resumed_at + 1, until + 1):
        logger.write("distil", {"distil/loss": step + shift, "distil/gradient_norm": 1.0}, step=step)
    if done:
        logger.conclude(COMPARISON)
    logger.close(done=True)


def test_tensorboard_forgets_later_steps_of_the_files_before(tmp_path):
    tensorboard_process(tmp_path, resumed_at=0, until=5, shift=0.5)
    tensorboard_process(tmp_path, resumed_at=2, until=4)  # in the same second, perhaps, and yet in a file of its own
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
    assert shown(tmp_path)["distil/loss"] == {1: 1.5, 2: 2.5, 3: 3.0, 4: 4.0}
    tensorboard_process(tmp_path, resumed_at=0, until=2)  # all over again
    assert shown(tmp_path)["distil/loss"] == {1: 1.0, 2: 2.0}


def test_settings_and_the_comparison_are_texts_of_tensorboard(tmp_path):
    tensorboard_process(tmp_path, resumed_at=0, until=1, done=True)
    texts = texts_of(tmp_path)
    assert "seed: 7" in texts["settings/text_summary"]
    assert "bucketed" in texts["comparison/text_summary"]


def test_a_run_that_was_done_is_concluded_again_and_keeps_its_steps(tmp_path):
    tensorboard_process(tmp_path, resumed_at=0, until=3, done=True)
    logger = tensorboard(tmp_path)
    logger.conclude(COMPARISON)
    logger.close(done=True)
    assert list(shown(tmp_path)["distil/loss"]) == [1, 2, 3]


def test_a_full_disk_is_an_error_here_and_now_and_nothing_waits_for_a_thread(tmp_path, monkeypatch):
    logger = tensorboard(tmp_path)
    logger.resume(0)

    def full(data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(logger._writer._py_recordio_writer, "write", full)
    with pytest.raises(OSError, match="No space left"):
        logger.write("distil", {"distil/loss": 1.0}, step=1)
    logger.close(done=True)
