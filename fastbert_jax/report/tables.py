"""Tables of numbers: a comparison as plain text, and in Markdown in the form of the FastBERT paper."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Iterator, Sequence

from fastbert_jax.report.comparison import BatchSizeComparison, Comparison, ComparisonRow, SpeedPoint

HEADER = ("mode", "speed", "accuracy", "depth", "FLOPs/paper", "FLOPs/true", "measured", "(min..max)", "efficiency")
RATE = "texts/s"
WIDTH = 118
FEW_BATCHES = 8
"""With fewer timed batches, filling and emptying an engine's queues takes a large part of the time."""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lines of plain text, the first column left-aligned, the others right-aligned, a rule under the header.

    Raises:
      ValueError: a row of another width than the header.
    """
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"expected {len(header)} cells, found {len(row)}: {row}")
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = cells
        right = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        return "  ".join([first.ljust(widths[0]), *right]).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same as a Markdown table."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))


def render(comparison: Comparison) -> str:
    """A comparison as plain text: one block per batch size, and the notes that explain how it was measured."""
    c = comparison
    header = header_of(c)
    rows = [cells(row, size, header) for size in c.batch_sizes for row in (*size.rows, *size.baselines)]
    if c.baseline_accuracy is not None:
        rows.append(("TF-IDF + linear SVM", "", f"{c.baseline_accuracy:.4f}", *[""] * (len(header) - 3)))
    head, rule, *body = table(header, rows).split("\n")
    lines = [head, rule]
    for size in c.batch_sizes:
        count = len(size.rows) + len(size.baselines)
        lines += [title(size), *body[:count], ""]
        body = body[count:]
    lines += [*body, ""] if body else []
    for note in notes(c):
        lines += textwrap.wrap(note, WIDTH)
    if any(size.speeds for size in c.batch_sizes):
        lines += ["", "Fastest mode at each speed; modes joined by `or` differ by less than the noise:"]
    for size in c.batch_sizes:
        if size.speeds:
            lines += textwrap.wrap(_fastest(size), WIDTH, initial_indent="  ", subsequent_indent="    ")
    if c.disagreements:
        lines.append(f"WARNING: {c.disagreements} answers of the engines differ from those of the all-exits pass.")
    return "\n".join(lines)


def header_of(comparison: Comparison) -> tuple[str, ...]:
    """The columns' names. Texts per second are shown only for a GPU or TPU."""
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
    """How the numbers of a comparison were measured, in sentences."""
    c = comparison
    yield f"{c.texts} texts, {c.layers} layers, on {c.origin.device}."
    yield (
        "measured: wall-clock speedup over full depth, the same model with its last exit alone, on the same batches; "
        f"median of {c.repeats} interleaved repeat{'s' * (c.repeats > 1)}. Every second repeat runs backwards, so that "
        "steady drift cancels. Tokenizing is not timed."
    )
    yield "efficiency: measured / (layers / depth of the timed texts)."
    yield (
        "Noise: full depth runs twice in every repeat, and its row shows one run over the other. These equal runs "
        f"differed by {'; '.join(map(_noise, c.batch_sizes))}."
    )
    if any(size.baselines for size in c.batch_sizes):
        yield "Other models are at their full depth; their speedups are over the compared model's."
    if len({size.timed_texts for size in c.batch_sizes}) > 1:
        yield "Small batches are timed on fewer texts, spread evenly over the others."
    for size in c.batch_sizes:
        if size.timed_batches < FEW_BATCHES and size.timed_texts < c.texts:
            yield (
                f"Batches of {size.batches}: {size.timed_batches} are few for engines that keep their batches full; "
                "raise --timed-texts."
            )
    if c.skipped_rows:
        yield f"{c.skipped_rows} rows could not be read and were skipped."
    if c.truncated_texts:
        yield f"{c.truncated_texts} texts are longer than the model's maximum length and were truncated."


def _noise(size: BatchSizeComparison) -> str:
    noise = size.noise
    return (
        f"{noise.median:.1%} (median; maximum {noise.high:.1%}) in batches of {size.batches}, where differences below "
        f"{size.least_difference:.1%} mean nothing"
    )


def _fastest(size: BatchSizeComparison) -> str:
    """One line: the fastest modes of every speed."""
    parts = []
    for speed in size.speeds:
        rows = size.fastest(speed)
        words = f"{' or '.join(row.mode for row in rows)} {rows[0].speedup.median:.2f}x"
        if not size.is_faster(rows[0].speedups):
            words += " (no faster than full depth)"
        parts.append(f"speed {speed:g} {words}")
    return f"batches of {size.batches}: {'; '.join(parts)}"


def render_markdown(comparison: Comparison, name: str) -> str:
    """The tables of the FastBERT paper: speeds and other models (Table 2), every exit alone, and LUHA (figure 4)."""
    c = comparison
    exits = [
        (
            str(row.layer),
            f"{row.accuracy:.4f}",
            f"{row.agreement:.4f}",
            f"{row.mean_uncertainty:.3f}",
            f"{row.paper_speedup:.2f}x",
        )
        for row in c.exits
    ]
    uncertainty = [
        (
            f"{bins[0].low:.1f} to {bins[0].high:.1f}",
            *("-" if one.accuracy is None else f"{one.accuracy:.3f} ({one.texts})" for one in bins),
        )
        for bins in zip(*(row.bins for row in c.exits), strict=True)
    ]
    parts = [
        f"# {name}",
        f"{c.texts} texts, {c.layers} layers, on {c.origin.device}. Command: `{c.origin.command}`.",
        "## Accuracy, FLOPs and time",
        speed_table(c),
        "FLOPs are per text, as the paper counts them (linear layers only, padded lengths). The true speedup includes "
        "attention's products and counts the exits as they are executed. Wall clock is the speedup over full depth of "
        f"the fastest mode: median of {c.repeats} interleaved repeats, with the smallest and the largest in brackets.",
        "## Every exit alone",
        markdown(("layer", "accuracy", "agrees with the last", "mean uncertainty", "speedup (paper)"), exits),
        "A model that always stops at one layer (the paper's *without adaptive inference*). Its FLOPs include all "
        "exits on the way, as in the paper's Table 3.",
        "## Lower uncertainty, higher accuracy",
        markdown(("uncertainty", *(f"exit {row.layer}" for row in c.exits)), uncertainty),
        "Accuracy, and in brackets the number of texts, by the uncertainty of each exit.",
    ]
    return "\n\n".join(parts) + "\n"


def speed_table(comparison: Comparison) -> str:
    """Full depth, other models and every speed in Markdown: the paper's Table 2, with wall-clock time."""
    first, *others = comparison.batch_sizes
    clocks = ("wall clock",) if not others else (f"wall clock, batches of {size.batches}" for size in (first, *others))
    rows = [_speed_cells("full depth", first.rows[0], comparison, [""] * (1 + len(others)))]
    for place, baseline in enumerate(first.baselines):
        times = [_wall_clock(size.baselines[place], named=False) for size in comparison.batch_sizes]
        rows.append(_speed_cells(baseline.mode, baseline, comparison, times))
    for speed in first.speeds:
        fastest = [size.fastest(speed)[0] for size in comparison.batch_sizes]
        named = len({row.mode for row in first.rows[1:]}) > 1
        times = [_wall_clock(row, named=named) for row in fastest]
        rows.append(_speed_cells(f"speed {speed:g}", fastest[0], comparison, times))
    return markdown(("model", "accuracy", "depth", "FLOPs (paper)", "speedup (paper)", "speedup (true)", *clocks), rows)


def _speed_cells(name: str, row: SpeedPoint, comparison: Comparison, times: Sequence[str]) -> Sequence[str]:
    return (
        name,
        f"{row.accuracy:.4f}",
        f"{row.mean_depth:.2f}",
        f"{row.paper_flops / comparison.texts / 1e6:.0f}M",
        f"{row.paper_speedup:.2f}x",
        f"{row.true_speedup:.2f}x",
        *times,
    )


def _wall_clock(row: ComparisonRow, *, named: bool) -> str:
    spread = row.speedup
    mode = f", {row.mode}" if named else ""
    return f"{spread.median:.2f}x ({spread.low:.2f} to {spread.high:.2f}){mode}"
