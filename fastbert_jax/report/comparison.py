"""The comparison of modes, speeds and batch sizes as numbers: accuracy, depth, FLOPs, every time that was taken."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from fastbert_jax.report.metrics import Spread

SCHEMA = 1
"""The version of the form of `Comparison.to_json`; it rises when a key changes its meaning or goes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """One mode at one speed and batch size.

    Speedups are over full depth: plain BERT with the teacher alone, on the same batches. Those of full depth itself
    are one run of it over another of the same repeat, which is the noise of the measurement.
    """

    mode: str
    speed: float
    accuracy: float
    mean_depth: float
    """Executed layers per text until it is sure, over all texts."""
    paper_flops: int
    """Of all texts together, as the FastBERT paper counts them, had every layer after the exit been skipped."""
    true_flops: int
    """Of all texts together, as they are really spent: `masked` skips nothing."""
    paper_speedup: float
    """In `paper_flops`."""
    true_speedup: float
    """In `true_flops`."""
    seconds: tuple[float, ...]
    """Wall-clock time of the timed texts, in every repeat."""
    speedups: tuple[float, ...]
    """In wall-clock time, in every repeat."""
    timed_depth: float
    """`mean_depth` of the timed texts."""
    layers: int

    @property
    def speedup(self) -> Spread:
        """In wall-clock time, over the repeats."""
        return Spread.of(self.speedups)

    @property
    def efficiency(self) -> float:
        """The measured speedup over the one that skipping layers promises, L / mean depth."""
        return self.speedup.median * self.timed_depth / self.layers


def batch_words(batch_size: int, batch_tokens: int) -> str:
    """What a batch holds: `1 text`, `32 texts`, `2048 tokens`."""
    if batch_size:
        return f"{batch_size} text" + "s" * (batch_size > 1)
    return f"{batch_tokens} tokens"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchSizeComparison:
    """All modes and speeds on batches of one size."""

    batch_size: int
    """Texts per batch; 0: as many as `batch_tokens` holds."""
    batch_tokens: int
    rows: tuple[ComparisonRow, ...]
    """Full depth first."""
    seconds_again: tuple[float, ...]
    """Of full depth's other run, in every repeat: the last of all where the first row's is the first of all, and the
    other way round in every second repeat."""
    timed_texts: int
    """Texts that were timed, spread evenly over all."""
    timed_batches: int
    padding_share: float
    """Share of the places in the timed batches that hold no token."""

    @property
    def batches(self) -> str:
        """What a batch holds: `1 text`, `32 texts`, `2048 tokens`."""
        return batch_words(self.batch_size, self.batch_tokens)

    @property
    def noise(self) -> Spread:
        """How far apart two runs of full depth in one repeat were, as a share."""
        return Spread.of([abs(ratio - 1) for ratio in self.rows[0].speedups])

    @property
    def least_difference(self) -> float:
        """The share by which speedups must differ to mean something: what three of four pairs of equal runs do not.

        Where repeats are few, what no pair did.
        """
        return self.noise.middle[1]

    @property
    def speeds(self) -> tuple[float, ...]:
        """All speeds but full depth's."""
        return tuple(dict.fromkeys(row.speed for row in self.rows[1:]))

    def fastest(self, speed: float) -> tuple[ComparisonRow, ...]:
        """The fastest mode at a speed, then those that the measurement cannot tell from it."""
        rows = sorted((row for row in self.rows[1:] if row.speed == speed), key=lambda row: -row.speedup.median)
        best = rows[0]
        ratios = ([mine / its for mine, its in zip(best.speedups, row.speedups, strict=True)] for row in rows)
        return tuple(row for row, ratio in zip(rows, ratios, strict=True) if not self.is_more(ratio))

    def is_more(self, ratios: Sequence[float]) -> bool:
        """Whether one thing is faster than another, by their ratio in every repeat: beyond noise, and mostly."""
        spread = Spread.of(ratios)
        return spread.median > 1 + self.least_difference and spread.middle[0] > 1

    def to_json(self) -> dict[str, Any]:
        """Plain values, what follows from the measured ones included."""
        values = dataclasses.asdict(self)
        for row, plain in zip(self.rows, values["rows"], strict=True):
            plain |= {"speedup": dataclasses.asdict(row.speedup), "efficiency": row.efficiency}
        fastest = {speed: self.fastest(speed) for speed in self.speeds}
        return values | {
            "noise": dataclasses.asdict(self.noise),
            "least_difference": self.least_difference,
            "fastest": [
                {
                    "speed": speed,
                    "modes": [row.mode for row in rows],
                    "faster_than_full_depth": self.is_more(rows[0].speedups),
                }
                for speed, rows in fastest.items()
            ],
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where numbers come from."""

    command: str
    commit: str
    """Of the package's source, `-dirty` where files differ from it; empty for a release."""
    date: str
    packages: dict[str, str]
    """Versions by name."""
    device: str
    platform: str
    """`cpu`, `gpu` or `tpu`."""
    machine: str
    """The host's architecture, system and cores."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """What early exit buys on one set of texts, on one machine."""

    batch_sizes: tuple[BatchSizeComparison, ...]
    layers: int
    texts: int
    """Texts that accuracy, depth and FLOPs are over."""
    repeats: int
    disagreements: int
    """Answers of an engine, among the timed texts, that differ from those of the pass that asks every exit."""
    origin: Provenance
    baseline_accuracy: float | None = None
    """Of TF-IDF and a linear SVM trained on the same texts."""
    skipped_rows: int = 0
    """Rows of the data, the baseline's included, that could not be read and were left out."""
    truncated_texts: int = 0
    """Texts that were longer than the model's longest, and lost their end."""

    @property
    def rows(self) -> tuple[ComparisonRow, ...]:
        """Those of all batch sizes."""
        return tuple(row for size in self.batch_sizes for row in size.rows)

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dump`.

        `schema` is `SCHEMA`. Then come this class's attributes, by their names: `layers`, `texts`, `repeats`,
        `disagreements`, `baseline_accuracy` (null without one), `skipped_rows`, `truncated_texts`, and

        - `origin`: the attributes of `Provenance`.
        - `batch_sizes`: a list, each with the attributes of `BatchSizeComparison`, its `noise` and `least_difference`
          (shares), and `fastest`: for every `speed` the `modes` that no difference beyond noise sets apart, the
          fastest first, and whether that one is `faster_than_full_depth`.
        - `rows` of a batch size: a list, each with the attributes of `ComparisonRow`, its `speedup` and `efficiency`.

        A spread (`speedup`, `noise`) holds `median`, `low`, `high`, `lower_quartile` and `upper_quartile`, which are
        null for fewer than five repeats. `seconds` and `speedups` hold one number per repeat. Within a repeat the
        runs of a batch size followed each other in the order of `rows`, then full depth once more (`seconds_again`);
        every second repeat went backwards. A speedup is full depth's time at the middle of the run, on the line
        between its two, over the run's own; every ratio can be computed anew from the seconds.
        """
        values = dataclasses.asdict(self)
        values["batch_sizes"] = [size.to_json() for size in self.batch_sizes]
        return {"schema": SCHEMA} | values
