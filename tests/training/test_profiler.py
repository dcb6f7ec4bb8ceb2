"""A profile: of the steps that were asked for, closed whatever ends the run, and no reason to end one."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from fastbert_jax.config import TrainConfig
from fastbert_jax.errors import PreemptedError, UserError
from fastbert_jax.training.preemption import StopRequest
from fastbert_jax.training.profiler import Profiler
from tests.training.tiny_run import run


def profiled_steps(directory: Path) -> list[int]:
    """The numbers of the steps in the one profile that is there."""
    (trace,) = directory.glob("plugins/profile/*/*.trace.json.gz")
    assert list(trace.parent.glob("*.xplane.pb"))
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    return sorted(int(event["args"]["step_num"]) for event in events if event.get("name") == "train")


def test_the_steps_that_were_asked_for_are_in_it_across_phases(tmp_path):
    said: list[str] = []
    run(tmp_path, profiler=Profiler(tmp_path / "profile", range(5, 9), say=said.append))  # 6 steps a phase
    assert profiled_steps(tmp_path / "profile") == [5, 6, 7, 8]
    (words,) = said
    assert words.startswith(f"profile: steps 5 to 8 are in {tmp_path / 'profile'}; ") and "xprof --logdir" in words


def test_a_stop_inside_the_range_closes_it_and_the_resumed_run_profiles_the_rest(tmp_path):
    stop, said = StopRequest(), []
    stop.here = True
    with pytest.raises(PreemptedError):
        run(tmp_path, stop=stop, profiler=Profiler(tmp_path / "one", range(1, 4), say=said.append))
    assert profiled_steps(tmp_path / "one") == [1]
    run(tmp_path, profiler=Profiler(tmp_path / "two", range(1, 4), say=said.append))
    assert profiled_steps(tmp_path / "two") == [2, 3]
    assert re.sub(r" are in .*", "", "\n".join(said)) == (
        "profile: steps 1 to 1\nprofile: of steps 1 to 3, 2 to 3 are left in this run of 12\nprofile: steps 2 to 3"
    )


@pytest.mark.parametrize(
    ("steps", "done", "words"),
    [
        (range(20, 31), 0, "profile: expected steps that are still to come, found 20 to 30; the run has 12: none is"),
        (range(2, 4), 7, "profile: expected steps that are still to come, found 2 to 3; 7 of 12 are done: none is"),
        (range(10, 31), 0, "profile: of steps 10 to 30, 10 to 12 are left in this run of 12"),
    ],
)
def test_steps_out_of_reach_are_said(tmp_path, steps, done, words):
    said: list[str] = []
    profiler = Profiler(tmp_path, steps, say=said.append)
    profiler.resume(done, total=12)
    (found,) = said
    assert found.startswith(words)


def test_a_profile_that_cannot_begin_or_be_written_is_said_and_the_steps_go_on(tmp_path):
    (tmp_path / "file").write_text("")
    said: list[str] = []
    jax.profiler.start_trace(str(tmp_path / "other"))
    for step in range(1, 4):
        profiler = Profiler(tmp_path, range(1, 3), say=said.append)
        with profiler.step(step):
            array = jnp.ones(3) + step
        profiler.end_after(step, array)
    jax.profiler.stop_trace()
    assert all("nothing is written, after: Profile has already been started" in words for words in said)
    assert len(said) == 2


@pytest.mark.parametrize("words", ["10", "10-20", "0:5", "20:10", "a:b", "1:2:3", " 1:2", "-1:3"])
def test_a_range_that_is_none_is_refused(words):
    with pytest.raises(UserError, match="profile: expected FIRST:LAST, two steps counted from 1, .* found"):
        TrainConfig(profile=words)
    assert list(TrainConfig(profile="10:12").profiled) == [10, 11, 12] and not TrainConfig().profiled
