"""Rates are of the time spent on steps alone; a profile is of the steps that were asked for, and ends no run."""

from __future__ import annotations

import gzip
import json
import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from fastbert_jax import processes
from fastbert_jax.config import TrainConfig
from fastbert_jax.errors import PreemptedError, UserError
from fastbert_jax.training import performance
from fastbert_jax.training.performance import Meter, Profiler
from tests.training.tiny_run import AskedToStop, run


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the run says of the profile."""
    words: list[str] = []
    monkeypatch.setattr(processes, "say", lambda line: words.append(line) if line.startswith("profile: ") else None)
    return words


def profiled_steps(directory: Path) -> list[int]:
    """The numbers of the steps in the one profile that is there."""
    (trace,) = directory.glob("plugins/profile/*/*.trace.json.gz")
    assert list(trace.parent.glob("*.xplane.pb"))
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    return sorted(int(event["args"]["step_num"]) for event in events if event.get("name") == "train")


@pytest.mark.slow
def test_the_steps_that_were_asked_for_are_in_it_across_phases(tmp_path, said):
    run(tmp_path, profiler=Profiler(tmp_path / "profile", range(5, 9)))  # 6 steps a phase
    assert profiled_steps(tmp_path / "profile") == [5, 6, 7, 8]
    (words,) = said
    assert words.startswith(f"profile: steps 5 to 8 are in {tmp_path / 'profile'}; ") and "xprof --logdir" in words


@pytest.mark.slow
def test_a_stop_inside_the_range_closes_it_and_the_resumed_run_profiles_the_rest(tmp_path, said):
    with pytest.raises(PreemptedError):
        run(
            tmp_path,
            stop=AskedToStop(signal.SIGTERM),
            profiler=Profiler(tmp_path / "one", range(1, 4)),
        )
    assert profiled_steps(tmp_path / "one") == [1]
    run(tmp_path, profiler=Profiler(tmp_path / "two", range(1, 4)))
    assert profiled_steps(tmp_path / "two") == [2, 3]
    assert [words.partition(" are in ")[0] for words in said] == [
        "profile: steps 1 to 1",
        "profile: of the steps 1 to 3, 2 to 3 left: 1 of 12 steps are done",
        "profile: steps 2 to 3",
    ]


@pytest.mark.parametrize(
    ("steps", "done", "words"),
    [
        (range(20, 31), 0, "profile: of the steps 20 to 30, none left: 0 of 12 steps are done"),
        (range(2, 4), 7, "profile: of the steps 2 to 3, none left: 7 of 12 steps are done"),
        (range(10, 31), 0, "profile: of the steps 10 to 30, 10 to 12 left: 0 of 12 steps are done"),
    ],
)
def test_steps_out_of_reach_are_said(tmp_path, steps, done, words, said):
    profiler = Profiler(tmp_path, steps)
    profiler.resume(done, total=12)
    assert said == [words]


def test_a_profile_that_cannot_begin_or_be_written_is_said_and_the_steps_go_on(tmp_path, said):
    (tmp_path / "file").write_text("")
    jax.profiler.start_trace(str(tmp_path / "other"))
    for step in range(1, 4):
        profiler = Profiler(tmp_path, range(1, 3))
        with profiler.step(step):
            array = jnp.ones(3) + step
        profiler.end_after(step, array)
    jax.profiler.stop_trace()
    assert all(
        "not written, because of an error; the run continues: Profile has already been started" in words
        for words in said
    )
    assert len(said) == 2


@pytest.mark.parametrize("words", ["10", "10-20", "0:5", "20:10", "a:b", "1:2:3", " 1:2", "-1:3"])
def test_a_range_that_is_none_is_refused(words):
    with pytest.raises(UserError, match="profile: expected FIRST:LAST, two steps counted from 1, .* found"):
        TrainConfig(profile=words)
    assert list(TrainConfig(profile="10:12").profiled) == [10, 11, 12] and not TrainConfig().profiled


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the test moves; one device does 1000 FLOP/s."""
    now = [100.0]
    monkeypatch.setattr(performance.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(performance, "measured_peak", lambda dtype: 1000.0)
    monkeypatch.setattr(performance.jax, "device_count", lambda: 1)

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
    assert line["model_flop_utilisation"] == 0.5 and "utilisation 50%" in words
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


def test_a_utilisation_that_cannot_be_is_neither_printed_nor_kept(clock, tmp_path):
    meter = Meter(tmp_path / "throughput.jsonl")
    clock(1.0)
    meter.count(texts=1, tokens=1, places=1, flops=1010)
    assert "utilisation" not in meter.report("distil", step=1)
    assert "utilisation" not in (tmp_path / "throughput.jsonl").read_text()


def test_the_peak_is_positive():
    assert performance.measured_peak("float32") > 0
