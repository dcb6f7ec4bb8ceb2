"""The comparison as a table for people: one block per batch size, and below it what a reader must know to trust it."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Iterator, Sequence

from fastbert_jax.report.comparison import BatchSizeComparison, Comparison, ComparisonRow
from fastbert_jax.report.plain_table import table

HEADER = ("mode", "speed", "accuracy", "depth", "FLOPs/paper", "FLOPs/true", "measured", "(min..max)", "efficiency")
RATE = "texts/s"
WIDTH = 118
FEW_BATCHES = 8
"""With fewer timed batches, filling and emptying an engine's queues weighs much."""


def render(comparison: Comparison) -> str:
    """The table and its notes."""
    c = comparison
    header = header_of(c)
    rows = [cells(row, size, header) for size in c.batch_sizes for row in size.rows]
    if c.baseline_accuracy is not None:
        rows.append(("TF-IDF + linear SVM", "", f"{c.baseline_accuracy:.4f}", *[""] * (len(header) - 3)))
    head, rule, *body = table(header, rows).split("\n")
    lines = [head, rule]
    for size in c.batch_sizes:
        lines += [title(size), *body[: len(size.rows)], ""]
        body = body[len(size.rows) :]
    lines += [*body, ""] if body else []
    for note in notes(c):
        lines += textwrap.wrap(note, WIDTH)
    if any(size.speeds for size in c.batch_sizes):
        lines += ["", "Fastest at each speed, with those that noise cannot tell from it:"]
    for size in c.batch_sizes:
        if size.speeds:
            lines += textwrap.wrap(_best(size), WIDTH, initial_indent="  ", subsequent_indent="    ")
    if c.disagreements:
        lines.append(f"WARNING: {c.disagreements} answers of the engines differ from those of the all-exits pass.")
    return "\n".join(lines)


def header_of(comparison: Comparison) -> tuple[str, ...]:
    """The columns' names. Texts per second are among them only where a GPU or TPU was measured."""
    return HEADER if comparison.origin.platform == "cpu" else (*HEADER, RATE)


def title(size: BatchSizeComparison) -> str:
    """What was timed at a batch size, in words."""
    batches = f"{size.timed_batches} batch" + "es" * (size.timed_batches > 1)
    return f"batches of {size.batches}: {size.timed_texts} texts timed in {batches}, {size.padding_share:.0%} padding"


def cells(row: ComparisonRow, size: BatchSizeComparison, header: Sequence[str]) -> tuple[str, ...]:
    """A row of the table with the columns of `header_of`."""
    found = (
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
    return (*found, f"{size.timed_texts / statistics.median(row.seconds):.0f}") if RATE in header else found


def notes(comparison: Comparison) -> Iterator[str]:
    """What a reader must know to trust the table, in sentences."""
    c = comparison
    yield f"{c.texts} texts, {c.layers} layers, on {c.origin.device}."
    yield (
        "measured: wall-clock speedup over the same model at full depth, without exits, on the same batches; median "
        f"of {c.repeats} interleaved repeat{'s' * (c.repeats > 1)}, there and back, so that steady drift cancels; "
        "tokenizing is left out."
    )
    yield "efficiency: measured / (layers / depth of the timed texts)."
    yield (
        "Noise: full depth runs twice in every repeat, and its row is one run over the other. Two runs of the same "
        f"thing differed by {'; '.join(map(_noise, c.batch_sizes))}. Speedups whose ranges overlap may be "
        "equal; the last lines compare modes repeat by repeat."
    )
    if len({size.timed_texts for size in c.batch_sizes}) > 1:
        yield "Small batches are timed on fewer texts, a part of the others, spread evenly."
    for size in c.batch_sizes:
        if size.timed_batches < FEW_BATCHES and size.timed_texts < c.texts:
            yield (
                f"Batches of {size.batches}: {size.timed_batches} are few for engines that keep their batches full; "
                "raise --timed-texts."
            )
    if c.skipped_rows:
        yield f"{c.skipped_rows} rows could not be read and were left out."
    if c.truncated_texts:
        yield f"{c.truncated_texts} texts are longer than the model's longest and were cut."


def _noise(size: BatchSizeComparison) -> str:
    noise, least = size.noise, size.least_difference
    return (
        f"{noise.median:.1%}, at most {noise.high:.1%}, in batches of {size.batches}, where less than {least:.1%} "
        "means nothing"
    )


def _best(size: BatchSizeComparison) -> str:
    """One line: the fastest modes of every speed."""
    parts = []
    for speed in size.speeds:
        rows = size.fastest(speed)
        words = f"{' or '.join(row.mode for row in rows)} {rows[0].speedup.median:.2f}x"
        if not size.is_more(rows[0].speedups):
            words += " (no faster than full depth)"
        parts.append(f"speed {speed:g} {words}")
    return f"batches of {size.batches}: {'; '.join(parts)}"
