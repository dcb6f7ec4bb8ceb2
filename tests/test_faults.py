"""kill -9, SIGTERM and Ctrl-C at random moments; the run that goes on is bit for bit the one that was never stopped."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import jax
import pytest
from orbax.checkpoint import v1 as ocp

from fastbert_jax.training.streams import tree_sha256
from tests.training.launched import newest_checkpoint, start, write_settings

PHASES = """
fine_tune: {epochs: 12, batch_size: 8, learning_rate: 0.01}
distil: {epochs: 12, batch_size: 8, learning_rate: 0.01, cache_teacher: true}
checkpoints: {every: 5}
"""
TRIALS = 20
CODES = {signal.SIGKILL: -9, signal.SIGTERM: 42, signal.SIGINT: 130}
LONGEST = 4.0
"""Seconds after its first new checkpoint within which a run is killed."""


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Path:
    return write_settings(tmp_path_factory.mktemp("faults"), texts=100, phases=PHASES)


def _start(settings: Path, run: Path, count: int) -> list[subprocess.Popen]:
    return start(settings, run, processes=count, devices=2)


def _codes(processes: list[subprocess.Popen]) -> list[int]:
    """How they end; what they print is read, or they would wait for that."""
    for process in processes:
        process.communicate(timeout=600)
    return [process.returncode for process in processes]


def _state(run: Path) -> str:
    """SHA-256 over the model, the newest checkpoint's parameters and optimizer state, and the logged losses."""
    digest = hashlib.sha256((run / "model" / "model.safetensors").read_bytes())
    newest = run / "checkpoints" / str(newest_checkpoint(run))
    about = json.loads((newest / "_CHECKPOINT_METADATA").read_text())["custom_metadata"]
    digest.update(json.dumps(about["position"], sort_keys=True).encode())
    digest.update(tree_sha256(_arrays_of(newest)).encode())
    digest.update((run / "metrics.jsonl").read_bytes())
    return digest.hexdigest()


def _arrays_of(checkpoint: Path) -> Any:
    """Its arrays on one device, whatever mesh they were saved from."""
    here, found = jax.sharding.SingleDeviceSharding(jax.devices()[0]), ocp.metadata(checkpoint).metadata
    return ocp.load(checkpoint, jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), found))


@pytest.fixture(scope="module")
def whole(settings):
    """The state of the run that is never stopped, by the number of processes."""
    states = {}
    for count in (1, 2):
        run = settings.parent / f"whole{count}"
        assert _codes(_start(settings, run, count)) == [0] * count
        states[count] = _state(run)
    return states


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("struck", list(CODES))
def test_twenty_stops_at_random_moments_change_no_bit(settings, whole, count, struck):
    moments = random.Random(f"{count} {struck}")
    stopped = trial = 0
    while stopped < TRIALS:
        run = settings.parent / f"{struck.name}{count}.{trial}"
        trial += 1
        while True:  # one run, stopped again and again until it comes to its end
            before = newest_checkpoint(run)
            processes = _start(settings, run, count)
            deadline = moments.uniform(0, LONGEST)
            while newest_checkpoint(run) == before and processes[0].poll() is None:
                time.sleep(0.005)
            time.sleep(deadline if stopped < TRIALS else 0)
            running = all(process.poll() is None for process in processes)
            struck_now = running and stopped < TRIALS
            if struck_now:
                for process in processes if struck is signal.SIGKILL else processes[:1]:
                    process.send_signal(struck)
            codes = _codes(processes)
            if codes == [0] * count:
                break
            assert struck_now, codes
            if (run / "comparison.json").exists() and -15 in codes:
                continue  # all was done, and Python on its way out
            stopped += 1
            # When the model is there the processes have parted, and only the one that was struck stops.
            parted = (run / "model").exists() and set(codes) == {CODES[struck], 0}
            assert set(codes) == {CODES[struck]} or parted, codes
        assert _state(run) == whole[count], f"{run}, after {stopped} stops"


@pytest.mark.slow
def test_when_one_of_two_processes_dies_the_other_ends_too(settings):
    processes = _start(settings, settings.parent / "one dies", 2)
    while newest_checkpoint(settings.parent / "one dies") == 0:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)
    processes[1].kill()
    survivor, killed = _codes(processes)
    assert survivor != 0 and killed == -9
