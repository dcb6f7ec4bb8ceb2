"""What a logger is: a place beside `metrics.jsonl` that a run's numbers go to, told what the journal tells."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from fastbert_jax.config import TrainConfig
from fastbert_jax.report.comparison import Comparison


@dataclasses.dataclass(frozen=True, kw_only=True)
class About:
    """The run that a logger is opened for."""

    directory: Path
    config: TrainConfig
    identity: str
    """What the backend has called this run since it was first opened there; empty: it has not been."""

    @property
    def name(self) -> str:
        """The run's name for people."""
        return self.directory.resolve().name


class Logger(Protocol):
    """One backend, which the first process alone writes to. Any method may raise; the logger is then given up.

    A resumed run does steps again that an earlier process has logged, to the same values. The journal forgets those; a
    backend that cannot forget them leaves them out when they come again, so that each is there once.
    """

    identity: str
    """What the backend calls this run, for the process that resumes it; empty where it needs no name."""

    def resume(self, step: int) -> None:
        """Training begins, or goes on, after this step."""

    def write(self, event: str, values: Mapping[str, float], *, step: int) -> None:
        """Numbers of one event, by names that begin with `EVENT/`; the steps of an event's kind rise."""

    def conclude(self, comparison: Comparison) -> None:
        """The run is done, and measured. A run that is done may be measured, and concluded, again."""

    def close(self) -> None:
        """Let go; a run that was not concluded was stopped."""


def numbers(name: str, value: Any) -> dict[str, float]:
    """The numbers in a journal's value, by flat names: the places of a list are layers, `dev/accuracy/layer_03`."""
    match value:
        case Mapping():
            return {key: x for part, inner in value.items() for key, x in numbers(f"{name}/{part}", inner).items()}
        case list():
            places = enumerate(value, start=1)
            return {key: x for layer, inner in places for key, x in numbers(f"{name}/layer_{layer:02}", inner).items()}
        case int() | float():
            return {name: float(value)}
    return {}


def last_step(event: str) -> str:
    """The name under which a backend keeps the last step that it has of an event's kind."""
    return f"{event}/step"


def test_numbers(comparison: Comparison) -> dict[str, float]:
    """What a comparison measured, by names such as `test/batches of 8 texts/cascade/speed 0.5/accuracy`."""
    return {
        f"test/batches of {size.batches}/{row.mode}/speed {row.speed:g}/{name}": value
        for size in comparison.batch_sizes
        for row in size.rows
        for name, value in {
            "accuracy": row.accuracy,
            "mean_depth": row.mean_depth,
            "speedup": row.speedup.median,
        }.items()
    }
