"""Model directories that a seed has damaged: each ends in a clear error or answers in numbers, in a few seconds."""

from __future__ import annotations

import json
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from fastbert_jax.errors import UserError
from fastbert_jax.inference.loading import load
from tests.inference.hostile import hostile_model
from tests.inference.saved import LABELS, save_tiny_model

SECONDS = 60
"""After so many a load hangs; it takes well under one."""
MOST_MEMORY = 2**31
"""Bytes that the loads may add to what the process holds."""


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("good") / "model", num_layers=2)


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"expected an error or a model within {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def outcome(directory: Path) -> str:
    """`loaded` or `refused`; anything else is raised."""
    signal.alarm(SECONDS)
    try:
        predictor = load(directory)
        (answer,) = predictor.predict(["a good film"], mode="masked", batch_size=1)
        json.dumps([answer.label, answer.probability, answer.uncertainty], allow_nan=False)
        assert answer.label in predictor.labels and 1 <= answer.exit_layer <= predictor.config.num_layers
        assert len(predictor.labels) == len(LABELS)
    except UserError as error:
        assert 20 < len(str(error)) < 20_000 and "Traceback" not in str(error)
        return "refused"
    finally:
        signal.alarm(0)
    return "loaded"


def outcomes(good: Path, directory: Path, seeds: range) -> dict[str, int]:
    """How many directories loaded and how many were refused; all failures are in one message."""
    counts, wrong = {"loaded": 0, "refused": 0}, []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in seeds:
        changes = hostile_model(good, directory / str(seed), seed)
        try:
            counts[outcome(directory / str(seed))] += 1
        except BaseException as error:  # a panic of Rust is no Exception
            wrong.append(f"{seed} {changes}: {type(error).__name__}: {str(error)[:300]}")
    assert not wrong, "\n".join(wrong)
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < MOST_MEMORY
    return counts


def test_the_good_one_loads(good: Path) -> None:
    assert outcome(good) == "loaded"


def test_sixty_hostile_directories(good: Path, tmp_path: Path) -> None:
    counts = outcomes(good, tmp_path, range(60))
    assert counts["refused"] > 30 and counts["loaded"] > 1


@pytest.mark.slow
def test_three_hundred_hostile_directories(good: Path, tmp_path: Path) -> None:
    counts = outcomes(good, tmp_path, range(1000, 1300))
    print(counts)
    assert counts["refused"] > 150
