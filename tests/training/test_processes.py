"""Real processes: two of two devices train what one of four and one of one train, stop together, and resume."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

ROOT = Path(__file__).parent.parent.parent
SETTINGS = """
data: {{train: {train}, dev: {train}, test: {train}, max_length: 12, length_buckets: [12]}}
model:
  {{pretrained: random, hidden_size: 16, num_layers: 2, num_heads: 2, feed_forward_size: 32, exit_size: 8,
   vocab_size: 60}}
fine_tune: {{epochs: 2, batch_size: 8, learning_rate: 0.01}}
distil: {{epochs: 2, batch_size: 4, learning_rate: 0.01, pack: true, texts_per_row: 4}}
evaluate: {{speeds: [], modes: [], repeats: 1, batch_size: 8, baseline: false}}
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("processes")
    generator = np.random.default_rng(0)
    rows = ["label\ttext"]
    for _ in range(45):
        label, word = (("good", "fine"), ("bad", "poor"))[generator.integers(2)]
        rows.append(f"{label}\t{' '.join(generator.choice(['film', 'plot', 'the'], generator.integers(1, 9)))} {word}")
    (directory / "train.tsv").write_text("\n".join(rows) + "\n")
    path = directory / "tiny.yaml"
    path.write_text(SETTINGS.format(train=directory / "train.tsv"))
    return path


def _start(settings: Path, run: Path, *flags: object, devices: int, index: int = -1, port: int = 0) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "train.py"), "--config", str(settings), "--run", str(run), *map(str, flags)]
    if index >= 0:
        command += ["--processes.coordinator", f"localhost:{port}", "--processes.count", "2"]
        command += ["--processes.index", str(index)]
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
    }
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _two(settings: Path, run: Path, *flags: object) -> list[subprocess.Popen]:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port = found.getsockname()[1]
    return [_start(settings, run, *flags, devices=2, index=index, port=port) for index in (0, 1)]


def _end(processes: list[subprocess.Popen]) -> list[int]:
    printed = [process.communicate(timeout=300)[0] for process in processes]
    codes = [process.returncode for process in processes]
    assert all(code in (0, 42) for code in codes), "\n".join(printed)
    return codes


def _losses(run: Path) -> list[float]:
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [event["loss"] for event in events if event["event"] != "dev"]


def _weights(run: Path) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(run / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def one(settings) -> Path:
    """The run of one process on one device."""
    run = settings.parent / "one"
    assert _end([_start(settings, run, devices=1)]) == [0]
    return run


@pytest.fixture(scope="module")
def two(settings) -> Path:
    """The run of two processes of two devices each."""
    run = settings.parent / "two"
    assert _end(_two(settings, run)) == [0, 0]
    return run


def _assert_same(run: Path, other: Path) -> None:
    np.testing.assert_allclose(_losses(run), _losses(other), rtol=1e-4)
    for name, tensor in _weights(run).items():
        # Adam's steps are as large as the rate, whatever the gradient: where that is near 0, rounding decides.
        np.testing.assert_allclose(tensor, _weights(other)[name], atol=5e-3, err_msg=name)


def test_two_processes_of_two_devices_train_what_one_trains(one, two):
    _assert_same(two, one)


@pytest.mark.slow
def test_one_process_of_four_devices_trains_it_too(settings, one):
    four = settings.parent / "four"
    assert _end([_start(settings, four, devices=4)]) == [0]
    _assert_same(four, one)


def test_sigterm_to_one_of_two_processes_stops_both_at_one_step_and_they_resume_bit_for_bit(settings, two):
    run = settings.parent / "stopped"
    processes = _two(settings, run)
    while not (run / "checkpoints").exists() or not any(p.name.isdigit() for p in (run / "checkpoints").iterdir()):
        assert processes[0].poll() is None
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGTERM)
    assert _end(processes) == [42, 42]
    assert _end(_two(settings, run)) == [0, 0]
    for name in ("metrics.jsonl", "model/model.safetensors"):
        assert (run / name).read_bytes() == (two / name).read_bytes(), name


def test_a_run_goes_on_with_another_number_of_processes_and_every_text_is_seen_once(settings, one):
    run = settings.parent / "moved"
    process = _start(settings, run, devices=1)
    while not (run / "checkpoints").exists() or not any(p.name.isdigit() for p in (run / "checkpoints").iterdir()):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert _end([process]) == [42]
    assert _end(_two(settings, run, "--mesh.data", 2, "--mesh.fsdp", 2)) == [0, 0]
    np.testing.assert_allclose(_losses(run), _losses(one), rtol=1e-4)
