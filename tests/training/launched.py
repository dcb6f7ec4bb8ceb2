"""Real runs of train.py on a tiny model, by as many processes as a test asks for."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np

ROOT = Path(__file__).parent.parent.parent
SETTINGS = """
data: {{train: {train}, dev: {train}, test: {train}, max_length: 12, length_buckets: [12]}}
model:
  {{pretrained: random, hidden_size: 16, num_layers: 2, num_heads: 2, feed_forward_size: 32, exit_size: 8,
   vocab_size: 60}}
evaluate: {{speeds: [], modes: [], repeats: 1, batch_size: 8, baseline: false}}
"""


def write_settings(directory: Path, *, texts: int, phases: str) -> Path:
    """A YAML file of a tiny run in a directory, beside its texts; `phases` are the lines of what it trains."""
    generator = np.random.default_rng(0)
    rows = ["label\ttext"]
    for _ in range(texts):
        label, word = (("good", "fine"), ("bad", "poor"))[generator.integers(2)]
        rows.append(f"{label}\t{' '.join(generator.choice(['film', 'plot', 'the'], generator.integers(1, 9)))} {word}")
    (directory / "train.tsv").write_text("\n".join(rows) + "\n")
    path = directory / "tiny.yaml"
    path.write_text(SETTINGS.format(train=directory / "train.tsv") + phases)
    return path


def start(settings: Path, run: Path, *flags: object, processes: int, devices: int) -> list[subprocess.Popen]:
    """The processes of a run, of so many devices each; what they print can be read from them."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port = found.getsockname()[1]
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
    }
    command = [sys.executable, str(ROOT / "train.py"), "--config", str(settings), "--run", str(run), *map(str, flags)]
    if processes > 1:
        command += ["--processes.coordinator", f"localhost:{port}", "--processes.count", str(processes)]
        command += ["--processes.heartbeat-seconds", "10"]
    return [
        subprocess.Popen(
            [*command, *(["--processes.index", str(index)] if processes > 1 else [])],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(processes)
    ]


def newest_checkpoint(run: Path) -> int:
    """The newest complete step in a run's directory; 0 when there is none."""
    steps = (run / "checkpoints").iterdir() if (run / "checkpoints").exists() else ()
    return max((int(path.name) for path in steps if path.name.isdigit()), default=0)
