"""The dev set's measurements are read from the journal, each with its phase."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastbert_jax.training import journal as module
from fastbert_jax.training.journal import DEV_EVENT, Journal, dev_points, loss_points


def test_every_measurement_is_of_the_phase_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert dev_points(tmp_path / "metrics.jsonl") == []
    journal = Journal(tmp_path / "metrics.jsonl")
    journal.resume(0)
    for step in range(1, 10):
        journal.log("fine_tune" if step < 4 else "distil", step=step, values={"loss": 1.0, "terms": {}})
        if step % 3 == 0:
            journal.log(DEV_EVENT, step=step, values={"accuracy": [0.5, step / 10], "loss": [0.7, 0.6]})
    journal.close()
    points = dev_points(tmp_path / "metrics.jsonl")
    assert [(one["step"], one["phase"]) for one in points] == [(3, "fine_tune"), (6, "distil"), (9, "distil")]
    assert points[1]["accuracy"] == [0.5, 0.6] and points[1]["loss"] == [0.7, 0.6]
    monkeypatch.setattr(module, "MOST_DEV_POINTS", 2)
    assert [one["step"] for one in dev_points(tmp_path / "metrics.jsonl")] == [3, 9]


def test_losses_are_means_of_a_few_steps_of_one_phase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert loss_points(tmp_path / "metrics.jsonl") == []
    journal = Journal(tmp_path / "metrics.jsonl")
    journal.resume(0)
    for step in range(1, 9):
        journal.log("fine_tune" if step < 6 else "distil", step=step, values={"loss": float(step), "terms": {}})
        journal.log(DEV_EVENT, step=step, values={"accuracy": [0.5], "loss": [0.7]})
        journal.log("throughput", step=step, values={"loss": 100.0})
    journal.close()
    assert [one["loss"] for one in loss_points(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6, 7, 8]
    monkeypatch.setattr(module, "MOST_DEV_POINTS", 4)
    found = [(one["step"], one["phase"], one["loss"]) for one in loss_points(tmp_path / "metrics.jsonl")]
    assert found == [
        (2, "fine_tune", 1.5),
        (4, "fine_tune", 3.5),
        (5, "fine_tune", 5.0),
        (7, "distil", 6.5),
        (8, "distil", 8.0),
    ]
