"""A study of a model's exits as Markdown: Table 2's form with wall-clock time, every exit alone, and LUHA."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fastbert_jax.report.exit_study import BaselineRow, ExitStudy, SpeedPoint
from fastbert_jax.report.metrics import Spread


def render(study: ExitStudy) -> str:
    """The tables, with what a reader must know beside them."""
    parts = [
        f"# {study.name}",
        f"{study.texts} texts of {study.classes} classes, {study.layers} layers, on {study.origin['device']}. "
        f"Command: `{study.origin['command']}`.",
        "## Accuracy, FLOPs and time",
        markdown(
            ("model", "accuracy", "depth", "FLOPs (paper)", "speedup (paper)", "speedup (true)", "wall clock"),
            list(_table_2(study)),
        ),
        "FLOPs are per text: as the paper counts them (linear maps only, padded lengths); the true speedup has "
        "attention's products and the exits as they are executed. Wall clock is the speedup over full depth, by "
        f"`{study.mode}` on {study.timed_texts} texts: median (smallest to largest) of interleaved repeats.",
        "## Every exit alone",
        markdown(
            ("layer", "accuracy", "agrees with the last", "mean uncertainty", "speedup (paper)"),
            [
                (
                    str(row.layer),
                    f"{row.accuracy:.4f}",
                    f"{row.agreement:.4f}",
                    f"{row.mean_uncertainty:.3f}",
                    f"{row.paper_speedup:.2f}x",
                )
                for row in study.exits
            ],
        ),
        "A model that always stops at one layer (the paper's *without adaptive inference*); each exit on the way is "
        "paid for, as in its Table 3.",
        "## Lower uncertainty, higher accuracy",
        markdown(
            ("uncertainty", *(f"exit {row.layer}" for row in study.exits)),
            [
                (
                    f"{bins[0].low:.1f} to {bins[0].high:.1f}",
                    *("-" if one.accuracy is None else f"{one.accuracy:.3f} ({one.texts})" for one in bins),
                )
                for bins in zip(*(row.bins for row in study.exits), strict=True)
            ],
        ),
        "Accuracy, and in brackets the number of texts, by the uncertainty of each exit.",
    ]
    return "\n\n".join(parts) + "\n"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the first column to the left, the others to the right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *rows))


def _table_2(study: ExitStudy) -> Iterator[Sequence[str]]:
    yield _row("full depth", study.full_depth.mean_depth, study.full_depth)
    for row in study.baselines:
        yield _row(row.name, row.layers, row)
    for point in study.table:
        yield _row(f"speed {point.speed:g}", point.mean_depth, point)


def _row(name: str, depth: float, at: SpeedPoint | BaselineRow) -> Sequence[str]:
    return (
        name,
        f"{at.accuracy:.4f}",
        f"{depth:.2f}",
        f"{at.paper_flops / 1e6:.0f}M",
        f"{at.paper_speedup:.2f}x",
        f"{at.true_speedup:.2f}x",
        _measured(at.measured),
    )


def _measured(spread: Spread | None) -> str:
    return "" if spread is None else f"{spread.median:.2f}x ({spread.low:.2f} to {spread.high:.2f})"
