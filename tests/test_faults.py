"""kill -9 and SIGTERM at random moments, and the run that goes on is bit for bit the one that was never stopped."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
SETTINGS = """
data: {{train: {train}, dev: {train}, test: {train}, max_length: 12, length_buckets: [12]}}
model:
  {{pretrained: random, hidden_size: 16, num_layers: 2, num_heads: 2, feed_forward_size: 32, exit_size: 8,
   vocab_size: 60}}
fine_tune: {{epochs: 12, batch_size: 8, learning_rate: 0.01}}
distil: {{epochs: 12, batch_size: 8, learning_rate: 0.01}}
checkpoints: {{every: 5}}
evaluate: {{speeds: [], modes: [], repeats: 1, batch_size: 8, baseline: false}}
"""
TRIALS = 20
LONGEST = 4.0
"""Seconds after its first new checkpoint within which a run is killed."""


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("faults")
    generator = np.random.default_rng(0)
    rows = ["label\ttext"]
    for _ in range(100):
        label, word = (("good", "fine"), ("bad", "poor"))[generator.integers(2)]
        rows.append(f"{label}\t{' '.join(generator.choice(['film', 'plot', 'the'], generator.integers(1, 9)))} {word}")
    (directory / "train.tsv").write_text("\n".join(rows) + "\n")
    path = directory / "tiny.yaml"
    path.write_text(SETTINGS.format(train=directory / "train.tsv"))
    return path


def _start(settings: Path, run: Path, count: int) -> list[subprocess.Popen]:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port = found.getsockname()[1]
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(settings.parent / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "2",
    }
    command = [sys.executable, str(ROOT / "train.py"), "--config", str(settings), "--run", str(run)]
    started = []
    for index in range(count):
        flags = ["--processes.coordinator", f"localhost:{port}", "--processes.count", count, "--processes.index", index]
        flags += ["--processes.heartbeat-seconds", 10]
        words = [*command, *map(str, flags if count > 1 else [])]
        started.append(subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    return started


def _state(run: Path) -> str:
    """SHA-256 over the model, the newest checkpoint's parameters and optimizer state, and the logged losses."""
    digest = hashlib.sha256((run / "model" / "model.safetensors").read_bytes())
    newest = max((path for path in (run / "checkpoints").iterdir() if path.name.isdigit()), key=lambda p: int(p.name))
    about = json.loads((newest / "_CHECKPOINT_METADATA").read_text())["custom_metadata"]
    digest.update(json.dumps([about["position"], about["leaves"]], sort_keys=True).encode())
    digest.update((run / "metrics.jsonl").read_bytes())
    return digest.hexdigest()


def _newest(run: Path) -> int:
    if not (run / "checkpoints").exists():
        return 0
    return max((int(path.name) for path in (run / "checkpoints").iterdir() if path.name.isdigit()), default=0)


@pytest.fixture(scope="module")
def whole(settings):
    """The state of the run that is never stopped, by the number of processes."""
    states = {}
    for count in (1, 2):
        run = settings.parent / f"whole{count}"
        assert [process.wait(600) for process in _start(settings, run, count)] == [0] * count
        states[count] = _state(run)
    return states


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("struck", [signal.SIGKILL, signal.SIGTERM])
def test_twenty_stops_at_random_moments_change_no_bit(settings, whole, count, struck):
    moments = random.Random(f"{count} {struck}")
    stopped = trial = 0
    while stopped < TRIALS:
        run = settings.parent / f"{struck.name}{count}.{trial}"
        trial += 1
        while True:  # one run, stopped again and again until it comes to its end
            before = _newest(run)
            processes = _start(settings, run, count)
            deadline = moments.uniform(0, LONGEST)
            while _newest(run) == before and processes[0].poll() is None:
                time.sleep(0.005)
            time.sleep(deadline if stopped < TRIALS else 0)
            running = all(process.poll() is None for process in processes)
            struck_now = running and stopped < TRIALS
            if struck_now:
                for process in processes if struck is signal.SIGKILL else processes[:1]:
                    process.send_signal(struck)
            codes = [process.wait(600) for process in processes]
            if codes == [0] * count:
                break
            assert struck_now, codes
            if (run / "comparison.json").exists() and -15 in codes:
                continue  # all was done, and Python on its way out
            stopped += 1
            expected = {-9} if struck is signal.SIGKILL else {42}
            # When the model is there the processes have parted, and only the one that was struck stops.
            assert set(codes) == expected or (set(codes) == {42, 0} and (run / "model").exists()), codes
        assert _state(run) == whole[count], f"{run}, after {stopped} stops"


@pytest.mark.slow
def test_when_one_of_two_processes_dies_the_other_ends_too(settings):
    processes = _start(settings, settings.parent / "one dies", 2)
    while _newest(settings.parent / "one dies") == 0:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)
    processes[1].kill()
    assert processes[0].wait(120) != 0 and processes[1].wait() == -9
