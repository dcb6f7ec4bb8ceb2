"""Real processes: two of two devices train what one of four and one of one train, stop together, and resume."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from tests.training.launched import newest_checkpoint, start, write_settings

PHASES = """
fine_tune: {epochs: 2, batch_size: 8, learning_rate: 0.01}
distil: {epochs: 2, batch_size: 4, learning_rate: 0.01, pack: true, texts_per_row: 4}
"""


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Path:
    return write_settings(tmp_path_factory.mktemp("processes"), texts=45, phases=PHASES)


def _end(processes: list[subprocess.Popen]) -> list[int]:
    printed = [process.communicate(timeout=300)[0] for process in processes]
    codes = [process.returncode for process in processes]
    assert all(code in (0, 42) for code in codes), "\n".join(printed)
    return codes


def _losses(run: Path) -> list[float]:
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [event["loss"] for event in events if event["event"] != "dev"]


def _largest_difference(run: Path, other: Path) -> float:
    """Of two models' weights."""
    ours, theirs = (safetensors.numpy.load_file(path / "model" / "model.safetensors") for path in (run, other))
    assert ours.keys() == theirs.keys()
    return max(float(abs(ours[name] - theirs[name]).max()) for name in ours)


@pytest.fixture(scope="module")
def one(settings) -> Path:
    """The run of one process on one device."""
    run = settings.parent / "one"
    assert _end(start(settings, run, processes=1, devices=1)) == [0]
    return run


@pytest.fixture(scope="module")
def two(settings) -> Path:
    """The run of two processes of two devices each."""
    run = settings.parent / "two"
    assert _end(start(settings, run, processes=2, devices=2)) == [0, 0]
    return run


# Adam's steps are as large as the rate, whatever the gradient: where that is near 0, rounding decides.
ROUNDING = 5e-3


def test_two_processes_of_two_devices_train_what_one_trains(one, two):
    np.testing.assert_allclose(_losses(two), _losses(one), rtol=1e-4)
    assert _largest_difference(two, one) < ROUNDING


def test_two_processes_that_cache_the_teacher_train_what_one_trains_without(settings, one):
    run = settings.parent / "cached"
    assert _end(start(settings, run, "--distil.cache-teacher", processes=2, devices=2)) == [0, 0]
    np.testing.assert_allclose(_losses(run), _losses(one), rtol=1e-4)
    assert _largest_difference(run, one) < ROUNDING
    logits = np.load(run / "teacher_answers" / "values.npy")
    assert logits.shape == (45, 2) and (run / "teacher_answers" / "files.json").exists()


def test_one_process_of_four_devices_trains_it_too(settings, one):
    four = settings.parent / "four"
    assert _end(start(settings, four, processes=1, devices=4)) == [0]
    np.testing.assert_allclose(_losses(four), _losses(one), rtol=1e-4)
    assert _largest_difference(four, one) < ROUNDING


def test_sigterm_to_one_of_two_processes_stops_both_at_one_step_and_they_resume_bit_for_bit(settings, two):
    run = settings.parent / "stopped"
    processes = start(settings, run, processes=2, devices=2)
    while newest_checkpoint(run) == 0:
        assert processes[0].poll() is None
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGTERM)
    assert _end(processes) == [42, 42]
    assert _end(start(settings, run, processes=2, devices=2)) == [0, 0]
    for name in ("metrics.jsonl", "model/model.safetensors"):
        assert (run / name).read_bytes() == (two / name).read_bytes(), name


def test_a_run_goes_on_with_another_number_of_processes_and_every_text_is_seen_once(settings, one):
    run = settings.parent / "moved"
    (process,) = start(settings, run, processes=1, devices=1)
    while newest_checkpoint(run) == 0:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert _end([process]) == [42]
    assert _end(start(settings, run, "--mesh.data", 2, "--mesh.fsdp", 2, processes=2, devices=2)) == [0, 0]
    np.testing.assert_allclose(_losses(run), _losses(one), rtol=1e-4)


def test_a_killed_process_ends_the_other_in_words_and_the_run_goes_on_bit_for_bit(settings, two):
    run = settings.parent / "killed"
    processes = start(settings, run, "--checkpoints.every", 2, processes=2, devices=2)
    while newest_checkpoint(run) == 0:
        assert processes[0].poll() is None
        time.sleep(0.01)
    processes[1].kill()
    printed = processes[0].communicate(timeout=120)[0]
    processes[1].communicate()
    ours, of_jax = "error: expected all processes to go on, found that one has ended", "another task died"
    end = {1: ours, -signal.SIGABRT: of_jax}  # JAX ends a process that waits where no connection breaks
    assert end[processes[0].returncode] in printed and "Traceback" not in printed, printed
    assert _end(start(settings, run, "--checkpoints.every", 2, processes=2, devices=2)) == [0, 0]
    assert (run / "model/model.safetensors").read_bytes() == (two / "model/model.safetensors").read_bytes()
