"""Another checkout of this repository against this one: inference and training, in turn on one machine.

    python benchmarks/versions.py --other ../before --output benchmarks/results/versions.json

Each checkout has a process of its own with the same model and texts; the two run every case in turn, so that drift and
other load meet both. `noise` is this checkout over itself, measured in the same way. Training is timed as `train.py`
writes it to `throughput.jsonl`: texts per second between measurements, compilation left out.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tyro

from fastbert_jax.command_line import TYRO_STYLE, end_with
from fastbert_jax.errors import UserError
from fastbert_jax.report.comparison import Spread
from measured import publish, ratio

HERE = Path(__file__).parent.parent
FULL_DEPTH, ONE_TEXT = "full depth", "one text"
MODES = ("bucketed", "cascade", "graph-cascade")
WORKER = """
import json, sys, time
import fastbert_jax
classifier = fastbert_jax.load(sys.argv[1])
texts = json.loads(open(sys.argv[2], encoding="utf-8").read())
plan, one = classifier.plan(texts), classifier.plan(texts[:1])
def run(case):
    if case == "full depth":
        classifier.predict_plan(plan, speed=0.0, mode="cascade")
    elif case == "one text":
        for _ in range(50):
            classifier.predict_plan(one, speed=0.0, mode="bucketed")
    else:
        classifier.predict_plan(plan, speed=float(sys.argv[3]), mode=case)
for line in sys.stdin:
    began = time.perf_counter()
    run(line.strip())
    print(time.perf_counter() - began, flush=True)
"""
"""Uses only what both checkouts have."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Compare two checkouts."""

    other: str
    """Directory of the other checkout."""
    model: str = "runs/demo"
    """Directory of a run that both can load."""
    texts: int = 1024
    """Random texts to classify."""
    speed: float = 0.5
    """Uncertainty threshold of the engines."""
    repeats: int = 9
    """Interleaved repeats of inference; the median counts. 0: training alone."""
    training_repeats: int = 3
    """Interleaved runs of training; 0: inference alone."""
    training_texts: int = 512
    """Random labelled texts of a run."""
    output: str = ""
    """JSON file of the result; empty: print it only."""


class Worker:
    """A process that runs cases with one checkout."""

    def __init__(self, checkout: Path, model: Path, texts: Path, speed: float) -> None:
        environment = os.environ | {"PYTHONPATH": str(checkout)}
        command = [sys.executable, "-c", WORKER, str(model), str(texts), str(speed)]
        self._process = subprocess.Popen(
            command, cwd=checkout, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def seconds(self, case: str) -> float:
        """Of one run."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(case, file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())


def main() -> None:
    """Measure, print, write."""
    settings = tyro.cli(Settings, config=TYRO_STYLE)
    other = Path(settings.other).resolve()
    if not (other / "fastbert_jax").is_dir():
        raise UserError(f"--other {other}: expected a checkout of this repository")
    with tempfile.TemporaryDirectory() as directory:
        cases = inference(settings, other, Path(directory)) if settings.repeats else {}
        if settings.training_repeats:
            cases |= training(settings, other, Path(directory))
    revision = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=other, capture_output=True, text=True, check=False
    ).stdout.strip()
    publish({"cases": cases, "other_commit": revision}, settings)


def inference(settings: Settings, other: Path, directory: Path) -> dict[str, dict]:
    """Seconds of this checkout over those of the other, for each case."""
    file = directory / "texts.json"
    file.write_text(json.dumps(random_texts(settings.texts)), encoding="utf-8")
    model = Path(settings.model).resolve()
    workers = [Worker(checkout, model, file, settings.speed) for checkout in (HERE, other, HERE)]
    found = {}
    for case in (FULL_DEPTH, *MODES, ONE_TEXT):
        times: list[list[float]] = [[] for _ in workers]
        for repeat in range(-2, settings.repeats):
            order = range(len(workers)) if repeat % 2 else reversed(range(len(workers)))
            for worker in order:
                seconds = workers[worker].seconds(case)
                if repeat >= 0:  # the first ones compile
                    times[worker].append(seconds)
        here, there, again = times
        found[case] = {"this_over_other": ratio(here, there), "noise": ratio(here, again)}
        print(case, found[case], file=sys.stderr)
    return found


def training(settings: Settings, other: Path, directory: Path) -> dict[str, dict]:
    """Texts per second of the other checkout over those of this one, for each phase."""
    file = directory / "train.tsv"
    rows = [f"{'ab'[number % 2]}\t{text}" for number, text in enumerate(random_texts(settings.training_texts))]
    file.write_text("\n".join(["label\ttext", *rows]), encoding="utf-8")
    rates: dict[str, list[list[float]]] = {"fine_tune": [[], [], []], "distil": [[], [], []]}
    for repeat in range(settings.training_repeats):
        sides = list(enumerate((HERE, other, HERE)))
        for side, checkout in sides if repeat % 2 else sides[::-1]:
            for phase, rate in train(checkout, file, directory / f"run_{repeat}_{side}").items():
                rates[phase][side].append(rate)
    found = {}
    for phase, (here, there, again) in rates.items():
        found[phase] = {"this_over_other": ratio(there, here), "noise": ratio(again, here)}
        print(phase, found[phase], file=sys.stderr)
    return found


def train(checkout: Path, file: Path, run: Path) -> dict[str, float]:
    """Texts per second of each phase; of the windows between measurements all but the first, which compiles."""
    settings = {
        "run": str(run),
        "data": {"train": str(file), "test": str(file), "max_length": 64},
        "evaluate": {"speeds": [], "baseline": False, "repeats": 1},
        "fine_tune": {"epochs": 2, "evaluations_per_epoch": 2},
        "distil": {"epochs": 2, "evaluations_per_epoch": 2},
    }
    config = run.with_suffix(".yaml")
    config.write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
    subprocess.run(
        [sys.executable, "train.py", "--config", str(config)],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout)},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    windows: dict[str, list[float]] = {}
    for line in (run / "throughput.jsonl").read_text(encoding="utf-8").splitlines():
        values = json.loads(line)
        windows.setdefault(values["event"], []).append(values["texts_per_second"])
    return {phase: Spread.of(rates[1:]).median for phase, rates in windows.items()}


def random_texts(count: int) -> list[str]:
    """Texts of 10 to 90 common words."""
    words = (
        "the a film of and to plot actors was is good bad slow with story in it but not very oil prices rose".split()
    )
    generator = random.Random(0)
    return [" ".join(generator.choices(words, k=generator.randint(10, 90))) for _ in range(count)]


if __name__ == "__main__":
    began = time.perf_counter()
    end_with(main)
    print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
