"""The meter: rates of the time that was spent on steps, whatever else was done between them."""

import json

import pytest

from fastbert_jax.training import throughput
from fastbert_jax.training.throughput import Meter


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is told otherwise; one device does 1000 FLOP/s."""
    now = [100.0]
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(throughput, "measured_peak", lambda dtype: 1000.0)
    monkeypatch.setattr(throughput.jax, "device_count", lambda: 1)

    def pass_by(seconds: float) -> None:
        now[0] += seconds

    return pass_by


def test_rates_are_of_the_time_of_steps_alone(clock, tmp_path):
    meter = Meter(tmp_path / "throughput.jsonl")
    for on, seconds in (("restore", 50.0), ("evaluation", 5.0), ("checkpoint", 3.0), ("data", 1.0)):
        with meter.spending(on):
            clock(seconds)
    clock(9.0)
    meter.count(texts=20, tokens=150, places=200, flops=5000)
    words = meter.report("distil", step=7)
    (line,) = [json.loads(line) for line in (tmp_path / "throughput.jsonl").read_text().splitlines()]
    assert line["texts_per_second"] == 2 and line["tokens_per_second"] == 15  # 10 s: 9 of steps, 1 of waiting
    assert line["padding_share"] == 0.25 and line["data_wait_share"] == 0.1
    assert line["model_flop_utilisation"] == 0.5
    assert line["goodput"] == pytest.approx(9 / 68)
    assert "2 texts/s" in words and "waiting for data 10%" in words


def test_a_report_begins_anew_and_says_nothing_of_no_steps(clock):
    meter = Meter(None)
    meter.count(texts=1, tokens=1, places=1, flops=1)
    clock(1.0)
    assert meter.report("distil", step=1)
    clock(5.0)
    assert meter.report("distil", step=1) == ""
    meter.count(texts=8, tokens=8, places=8, flops=8)
    clock(2.0)
    assert "4 texts/s" in meter.report("distil", step=2)


def test_the_peak_is_positive():
    assert throughput.measured_peak("float32") > 0
