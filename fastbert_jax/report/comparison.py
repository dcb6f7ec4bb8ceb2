"""What early exit buys, as numbers: accuracy, depth, FLOPs and times of every mode, speed and batch size."""

from __future__ import annotations

import dataclasses
import math
import statistics
import types
import typing
from collections.abc import Sequence
from typing import Any

import numpy as np

SCHEMA = 1
"""The version of `Comparison.to_json`; it rises when a key changes its meaning or is removed."""
QUARTILES_FROM = 5
"""Fewer values have no quartiles."""
BINS = 10
"""Bins of uncertainty or probability, equally wide from 0 to 1, as in the paper's figure 4."""
EDGES = np.linspace(0, 1, BINS + 1)
Z = statistics.NormalDist().inv_cdf(0.975)
"""Standard deviations from the mean that a normal variable exceeds, to either side, in 5 % of the cases."""


@dataclasses.dataclass(frozen=True)
class Share:
    """A share of some texts, with its 95 % interval: how far it may be off because the texts are few."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, part: float, total: int) -> Share | None:
        """`part` of `total` texts with Wilson's interval (1927); None of no texts."""
        if not total:
            return None
        share, weight = part / total, Z * Z / total
        middle, half = share + weight / 2, Z * math.sqrt(share * (1 - share) / total + weight / (4 * total))
        return cls(share, max(0.0, (middle - half) / (1 + weight)), min(1.0, (middle + half) / (1 + weight)))


def is_beyond_noise(gained: int, lost: int) -> bool:
    """Whether so many texts that gain and that lose a correct answer differ by more than chance, at a level of 5 %.

    McNemar's test of two classifiers on the same texts, with Edwards's correction for few texts (1948).
    """
    return abs(gained - lost) - 1 > Z * math.sqrt(gained + lost)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassScores:
    """The answers to the texts of one class."""

    label: str
    texts: int
    """Texts of this class."""
    given: int
    """Texts that are given this class."""
    right: int
    """Texts of this class that are given it."""

    @property
    def precision(self) -> Share | None:
        """The share of correct answers among those that give this class."""
        return Share.of(self.right, self.given)

    @property
    def recall(self) -> Share | None:
        """The share of correct answers among the texts of this class."""
        return Share.of(self.right, self.texts)

    @property
    def f1(self) -> Share | None:
        """The harmonic mean of precision and recall.

        It is 2 s / (1 + s) of the share s of correct answers among the texts that have or are given this class; its
        interval is Wilson's for s (the *Wilson indirect method* of Lam et al. 2023, arXiv 2309.14621).
        """
        share = Share.of(self.right, self.texts + self.given - self.right)
        return share and Share(*(2 * one / (1 + one) for one in (share.value, share.low, share.high)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Confusion:
    """Texts of one class that are given another one."""

    expected: str
    given: str
    texts: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupScore:
    """The answers to the texts that have one value in a column of the data."""

    column: str
    value: str
    texts: int
    right: int

    @property
    def accuracy(self) -> Share | None:
        """The share of correct answers."""
        return Share.of(self.right, self.texts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnswersAt:
    """All answers at one speed, by class and by the columns that were asked for."""

    speed: float
    classes: tuple[ClassScores, ...]
    """In the model's order."""
    confusions: tuple[Confusion, ...]
    """The wrong answers, most frequent first."""
    groups: tuple[GroupScore, ...] = ()
    """Column by column."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, with the shares that follow from the counts."""
        classes = [
            (one, {key: _plain(getattr(one, key)) for key in ("precision", "recall", "f1")}) for one in self.classes
        ]
        return dataclasses.asdict(self) | {
            "classes": [dataclasses.asdict(one) | shares for one, shares in classes],
            "groups": [dataclasses.asdict(one) | {"accuracy": _plain(one.accuracy)} for one in self.groups],
        }


def _plain(share: Share | None) -> dict[str, float] | None:
    return dataclasses.asdict(share) if share else None


@dataclasses.dataclass(frozen=True)
class Spread:
    """Repeated measurements of one quantity."""

    median: float
    low: float
    high: float
    lower_quartile: float | None = None
    """None for fewer than `QUARTILES_FROM` values."""
    upper_quartile: float | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Median, minimum and maximum of one or more values, and the quartiles where there are enough values."""
        ends = statistics.median(values), min(values), max(values)
        if len(values) < QUARTILES_FROM:
            return cls(*ends)
        lower, _, upper = statistics.quantiles(values, n=4, method="inclusive")
        return cls(*ends, lower, upper)

    @property
    def middle(self) -> tuple[float, float]:
        """The lower and upper quartile; minimum and maximum where there are no quartiles."""
        if self.lower_quartile is None or self.upper_quartile is None:
            return self.low, self.high
        return self.lower_quartile, self.upper_quartile

    @property
    def relative(self) -> float:
        """The range over the median: how noisy the measurement is."""
        return (self.high - self.low) / self.median


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bin:
    """The texts whose value (an uncertainty or a probability) is in `[low, high)`; the last bin includes 1."""

    low: float
    high: float
    texts: int
    right: int
    """Texts that are classified correctly."""
    mean: float | None
    """The mean of the values; None for an empty bin."""
    accuracy: float | None
    """The share of correct texts; None for an empty bin."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeedPoint:
    """All texts at one speed. Speedups are over full depth: the same model with its last exit alone."""

    speed: float
    accuracy: float
    mean_depth: float
    """Executed layers per text, up to its exit."""
    paper_flops: int
    """Of all texts together, as the FastBERT paper counts them: every layer after the exit is skipped."""
    true_flops: int
    """Of all texts together, as executed: mode `masked` skips nothing."""
    paper_speedup: float
    """In `paper_flops`."""
    true_speedup: float
    """In `true_flops`."""
    gained: int | None = None
    """Texts that are answered correctly here and not at full depth; None in files of earlier versions."""
    lost: int | None = None
    """Texts that are answered correctly at full depth and not here."""
    texts_per_exit: tuple[int, ...] = ()
    """Texts that exit after each layer (the paper's figure 5)."""
    uncertainty: tuple[float | None, ...] = ()
    """Mean uncertainty, at each exit, of the texts that reach it (figure 6); None where no text does or the exit is not
    asked."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComparisonRow(SpeedPoint):
    """One mode at one speed and batch size, or another model at its full depth.

    The speedups of the full-depth row are the ratios of its two runs in one repeat: the noise of the measurement.
    """

    mode: str
    """The engine, `full depth`, or the other model's directory."""
    seconds: tuple[float, ...]
    """Wall-clock time of the timed texts, in every repeat."""
    speedups: tuple[float, ...]
    """In wall-clock time, in every repeat."""
    timed_depth: float
    """`mean_depth` of the timed texts."""
    layers: int
    """Of the compared model."""

    @property
    def speedup(self) -> Spread:
        """In wall-clock time, over the repeats."""
        return Spread.of(self.speedups)

    @property
    def efficiency(self) -> float:
        """The measured speedup over layers / mean depth, the speedup of layers that are skipped at no cost."""
        return self.speedup.median * self.timed_depth / self.layers

    def to_json(self) -> dict[str, Any]:
        """Plain values, with those that follow from the measured ones."""
        return dataclasses.asdict(self) | {"speedup": dataclasses.asdict(self.speedup), "efficiency": self.efficiency}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchSizeComparison:
    """All modes and speeds on batches of one size."""

    batch_size: int
    """Texts per batch; 0: as many as `batch_tokens` holds."""
    batch_tokens: int
    rows: tuple[ComparisonRow, ...]
    """Full depth first."""
    baselines: tuple[ComparisonRow, ...] = ()
    """Other models at their full depth."""
    seconds_again: tuple[float, ...]
    """Of the second run of full depth, in every repeat. The first row's run is the first of a repeat and this one the
    last; in every second repeat it is the other way round."""
    timed_texts: int
    """Texts that were timed, spread evenly over all."""
    timed_batches: int
    padding_share: float
    """Share of the positions in the timed batches that hold no token."""

    @property
    def batches(self) -> str:
        """What a batch holds: `1 text`, `32 texts`, `2048 tokens`."""
        if self.batch_size:
            return f"{self.batch_size} text" + "s" * (self.batch_size > 1)
        return f"{self.batch_tokens} tokens"

    @property
    def noise(self) -> Spread:
        """The difference of two runs of full depth in one repeat, as a share."""
        return Spread.of([abs(ratio - 1) for ratio in self.rows[0].speedups])

    @property
    def least_difference(self) -> float:
        """The smallest difference of speedups that means something, as a share.

        Three of four pairs of equal runs differ by less; where repeats are few, all pairs do.
        """
        return self.noise.middle[1]

    @property
    def speeds(self) -> tuple[float, ...]:
        """All speeds except full depth's."""
        return tuple(dict.fromkeys(row.speed for row in self.rows[1:]))

    def fastest(self, speed: float) -> tuple[ComparisonRow, ...]:
        """The fastest mode at a speed, then those that the measurement cannot distinguish from it."""
        rows = sorted((row for row in self.rows[1:] if row.speed == speed), key=lambda row: -row.speedup.median)
        best = rows[0]
        ratios = ([mine / its for mine, its in zip(best.speedups, row.speedups, strict=True)] for row in rows)
        return tuple(row for row, ratio in zip(rows, ratios, strict=True) if not self.is_faster(ratio))

    def is_faster(self, ratios: Sequence[float]) -> bool:
        """Whether one run is faster than another, by their ratio in every repeat: beyond noise, and mostly."""
        spread = Spread.of(ratios)
        return spread.median > 1 + self.least_difference and spread.middle[0] > 1

    def estimated_speedups(self, mode: str, points: Sequence[SpeedPoint]) -> list[float]:
        """One mode's speedup in wall-clock time at every point; the measured one where the speed was timed.

        Between two timed speeds it is interpolated over L / mean depth, to which a speedup is proportional but for its
        efficiency. Full depth, 1 at 1, counts as timed. Beyond the fastest timed speed its speedup is repeated.
        """
        rows = [row for row in self.rows[1:] if row.mode == mode]
        layers = rows[0].layers
        known: dict[float, list[float]] = {1.0: [1.0]}
        for row in rows:
            known.setdefault(layers / row.mean_depth, []).append(row.speedup.median)
        skipped = sorted(known)
        line = [float(np.mean(known[one])) for one in skipped]
        timed = {0.0: 1.0} | {row.speed: row.speedup.median for row in rows}
        return [timed.get(point.speed, float(np.interp(layers / point.mean_depth, skipped, line))) for point in points]

    def to_json(self) -> dict[str, Any]:
        """Plain values, with those that follow from the measured ones."""
        fastest = [(speed, self.fastest(speed)) for speed in self.speeds]
        return dataclasses.asdict(self) | {
            "rows": [row.to_json() for row in self.rows],
            "baselines": [row.to_json() for row in self.baselines],
            "noise": dataclasses.asdict(self.noise),
            "least_difference": self.least_difference,
            "fastest": [
                {
                    "speed": speed,
                    "modes": [row.mode for row in rows],
                    "faster_than_full_depth": self.is_faster(rows[0].speedups),
                }
                for speed, rows in fastest
            ],
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExitRow:
    """One exit, asked of all texts."""

    layer: int
    """From 1."""
    accuracy: float
    """Of a model that always stops here: the paper's *without adaptive inference*."""
    agreement: float
    """The share of texts with the last exit's label."""
    mean_uncertainty: float
    paper_speedup: float
    """Of always stopping here, all exits on the way included, as in the paper's Table 3."""
    true_speedup: float
    """Of a model that ends here with this exit alone, in FLOPs as executed."""
    bins: tuple[Bin, ...]
    """By uncertainty: Lower Uncertainty, Higher Accuracy (LUHA, the paper's figure 4)."""
    reliability: tuple[Bin, ...]
    """By the probability of the exit's label."""


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
    """Texts for accuracy, depth and FLOPs."""
    repeats: int
    disagreements: int
    """Answers of an engine, among the timed texts, that differ from those of the pass that asks every exit."""
    origin: Provenance
    baseline_accuracy: float | None = None
    """Of TF-IDF and a linear SVM trained on the same texts."""
    baseline_gained: int | None = None
    """Texts that the SVM answers correctly and the model at full depth does not; None where it is not known."""
    baseline_lost: int | None = None
    """Texts that the model at full depth answers correctly and the SVM does not."""
    shown_speed: float = 0.0
    """The speed at which the report opens, and that tables show beside full depth."""
    answers: tuple[AnswersAt, ...] = ()
    """Full depth first, then the measured speeds and `shown_speed`, rising."""
    skipped_rows: int = 0
    """Rows that could not be read, the baseline's included, or have a label that the model does not have."""
    truncated_texts: int = 0
    """Texts that were longer than the model's maximum length and were truncated."""
    exits: tuple[ExitRow, ...] = ()
    """The exits that are asked."""
    curve: tuple[SpeedPoint, ...] = ()
    """Speeds evenly from 0 to 1, all exits on the way included in the FLOPs (the paper's figure 3)."""
    recommended: SpeedPoint | None = None
    """These texts at the speed that is recommended for the model; None where it has none for the exits in use."""

    @property
    def rows(self) -> tuple[ComparisonRow, ...]:
        """Those of all batch sizes."""
        return tuple(row for size in self.batch_sizes for row in size.rows)

    @property
    def points(self) -> tuple[ComparisonRow, ...]:
        """Full depth, then one row of every measured speed; their accuracies are those of all modes."""
        rows: dict[float, ComparisonRow] = {}
        for row in self.batch_sizes[0].rows:
            rows.setdefault(row.speed, row)
        return tuple(rows.values())

    def accuracy_of(self, accuracy: float) -> Share:
        """An accuracy on these texts with its 95 % interval."""
        return Share.of(accuracy * self.texts, self.texts) or Share(accuracy, 0.0, 1.0)

    @property
    def shown_answers(self) -> tuple[AnswersAt, ...]:
        """Those at full depth and at `shown_speed`, which may be the same."""
        return tuple(one for one in self.answers if one.speed in (0.0, self.shown_speed))

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dump`.

        `schema` is `SCHEMA`. Then come this class's attributes, by their names: `layers`, `texts`, `repeats`,
        `disagreements`, `baseline_accuracy`, `baseline_gained` and `baseline_lost` (null without one), `skipped_rows`,
        `truncated_texts`, `shown_speed`, and

        - `origin`: the attributes of `Provenance`.
        - `batch_sizes`: a list, each with the attributes of `BatchSizeComparison`, its `noise` and `least_difference`
          (shares), and `fastest`: for every `speed` the `modes` whose difference is within the noise, the fastest
          first, and whether that one is `faster_than_full_depth`.
        - `rows` and `baselines` of a batch size: lists, each with the attributes of `ComparisonRow`, its `speedup` and
          `efficiency`.
        - `exits` and `curve`: lists with the attributes of `ExitRow` and `SpeedPoint`.
        - `recommended`: a `SpeedPoint`, or null.
        - `answers`: a list with the attributes of `AnswersAt`; its `classes` have `precision`, `recall` and `f1`, its
          `groups` the `accuracy`, each with `value`, `low` and `high` of the 95 % interval.

        Every row, exit and point of the curve has the 95 % interval of its accuracy, `accuracy_low` and
        `accuracy_high`.
        A spread (`speedup`, `noise`) holds `median`, `low`, `high`, `lower_quartile` and `upper_quartile`, which are
        null for fewer than five repeats. `seconds` and `speedups` hold one number per repeat. Within a repeat the
        runs of a batch size followed each other in the order of `rows` and `baselines`, then full depth once more
        (`seconds_again`); every second repeat went backwards. A speedup is full depth's time at the middle of the run,
        interpolated between its two runs, over the run's own; every ratio can be computed from the seconds.
        """
        sizes = [size.to_json() for size in self.batch_sizes]
        values = dataclasses.asdict(self) | {
            "batch_sizes": sizes,
            "answers": [one.to_json() for one in self.answers],
        }
        rows = [row for size in sizes for row in (*size["rows"], *size["baselines"])]
        for one in (*rows, *values["exits"], *values["curve"]):
            share = self.accuracy_of(one["accuracy"])
            one |= {"accuracy_low": share.low, "accuracy_high": share.high}
        return {"schema": SCHEMA} | values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Comparison:
        """The comparison that `to_json` gave; keys that an older file lacks take their defaults.

        Raises:
          ValueError: the values have another `schema`, or lack a key.
        """
        if values.get("schema") != SCHEMA:
            raise ValueError(f"expected a comparison with schema {SCHEMA}, found {values.get('schema')!r}")
        try:
            comparison: Comparison = _read(cls, values)
        except TypeError as error:
            raise ValueError(f"expected the keys of a comparison: {error}") from None
        return comparison


def _read(kind: Any, value: Any) -> Any:
    """A value of a type from plain values: lists become tuples, and keys that are no field are left out."""
    if isinstance(kind, types.UnionType) and value is not None:  # `SpeedPoint | None`
        kind = typing.get_args(kind)[0]
    if value is not None and dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{name: _read(hint, value[name]) for name, hint in hints.items() if name in value})  # type: ignore[operator]
    if isinstance(value, list):
        return tuple(_read(typing.get_args(kind)[0], item) for item in value)
    return value


def bins_of(value_B: np.ndarray, right_B: np.ndarray) -> tuple[Bin, ...]:
    """Correct and all texts by value, in `BINS` bins.

    Args:
      value_B: in [0, 1].
      right_B: bool.
    """
    bin_B = np.clip(np.searchsorted(EDGES, value_B, side="right") - 1, 0, BINS - 1)
    texts, right, total = (np.bincount(bin_B, weights=one, minlength=BINS) for one in (None, right_B, value_B))
    return tuple(
        Bin(
            low=float(low),
            high=float(high),
            texts=int(count),
            right=int(good),
            mean=float(values / count) if count else None,
            accuracy=float(good / count) if count else None,
        )
        for low, high, count, good, values in zip(EDGES[:-1], EDGES[1:], texts, right, total, strict=True)
    )


def calibration_error(bins: Sequence[Bin]) -> float:
    """The expected calibration error: the distance of mean probability and accuracy, averaged over the texts.

    Guo et al. 2017, equation 3 (arXiv 1706.04599).

    Args:
      bins: of probabilities, with at least one text.
    """
    gaps = (abs(one.right - one.texts * one.mean) for one in bins if one.mean is not None)
    return sum(gaps) / sum(one.texts for one in bins)
