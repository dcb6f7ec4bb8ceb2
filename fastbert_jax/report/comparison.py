"""The comparison of modes and speeds: accuracy, depth, FLOPs and wall-clock time, as a table and as JSON."""

from __future__ import annotations

import dataclasses
from typing import Any

from fastbert_jax.report.metrics import Spread
from fastbert_jax.report.plain_table import table

HEADER = ("mode", "speed", "accuracy", "depth", "FLOPs/paper", "FLOPs/true", "measured", "(min..max)", "efficiency")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """One mode at one speed. Speedups are over full depth: plain BERT with the teacher alone, on the same batches."""

    mode: str
    speed: float
    accuracy: float
    mean_depth: float
    """Executed layers per text until it is sure, over all texts."""
    paper_speedup: float
    """In FLOPs as the FastBERT paper counts them, had every layer after the exit been skipped."""
    true_speedup: float
    """In FLOPs really spent: `masked` skips nothing."""
    speedup: Spread
    """In wall-clock time, over the repeats, on the timed texts."""
    timed_depth: float
    """`mean_depth` of the timed texts."""
    layers: int

    @property
    def efficiency(self) -> float:
        """The measured speedup over the one that skipping layers promises, L / mean depth."""
        return self.speedup.median * self.timed_depth / self.layers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """What early exit buys on one set of texts, on one machine."""

    rows: tuple[ComparisonRow, ...]
    """Full depth first."""
    layers: int
    texts: int
    """Texts that accuracy, depth and FLOPs are over."""
    timed_texts: int
    """Texts that were timed, spread evenly over all."""
    batches: str
    """What a batch holds: `32 texts`, `2048 tokens`."""
    padding_share: float
    """Share of the places in the timed batches that hold no token."""
    repeats: int
    noise: float
    """Spread of the full-depth times over their median."""
    disagreements: int
    """Answers of an engine, among the timed texts, that differ from those of the pass that asks every exit."""
    device: str
    baseline_accuracy: float | None = None
    """Of TF-IDF and a linear SVM trained on the same texts."""
    skipped_rows: int = 0
    """Rows of the data, the baseline's included, that could not be read and were left out."""
    truncated_texts: int = 0
    """Texts that were longer than the model's longest, and lost their end."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dump`."""
        values = dataclasses.asdict(self)
        for row, plain in zip(self.rows, values["rows"], strict=True):
            plain["efficiency"] = row.efficiency
        return values


def render(comparison: Comparison) -> str:
    """The table, and below it what a reader must know to trust it."""
    c = comparison
    rows = [_cells(row) for row in c.rows]
    if c.baseline_accuracy is not None:
        rows.append(("TF-IDF + linear SVM", "", f"{c.baseline_accuracy:.4f}", *[""] * (len(HEADER) - 3)))
    lines = [
        table(HEADER, rows),
        "",
        f"{c.texts} texts, {c.layers} layers, batches of {c.batches}, {c.padding_share:.0%} of them padding, "
        f"on {c.device}.",
        f"measured: wall-clock speedup over full depth on {c.timed_texts} of the texts, median of {c.repeats} "
        "interleaved repeats; tokenizing is left out.",
        f"efficiency: measured / (layers / depth). Noise: full depth itself varied by {c.noise:.1%}.",
    ]
    if c.skipped_rows:
        lines.append(f"{c.skipped_rows} rows could not be read and were left out.")
    if c.truncated_texts:
        lines.append(f"{c.truncated_texts} texts are longer than the model's longest and were cut.")
    if c.disagreements:
        lines.append(f"WARNING: {c.disagreements} answers of the engines differ from those of the all-exits pass.")
    return "\n".join(lines)


def _cells(row: ComparisonRow) -> tuple[str, ...]:
    return (
        row.mode,
        f"{row.speed:g}",
        f"{row.accuracy:.4f}",
        f"{row.mean_depth:.2f}",
        f"{row.paper_speedup:.2f}x",
        f"{row.true_speedup:.2f}x",
        f"{row.speedup.median:.2f}x",
        f"{row.speedup.low:.2f}..{row.speedup.high:.2f}",
        f"{row.efficiency:.2f}",
    )
