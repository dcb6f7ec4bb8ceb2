"""The way of one text through the layers as a table for a terminal, in colour where there is one."""

from __future__ import annotations

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from fastbert_jax.report.exit_path import ExitAnswer, ExitPath

BAR = 10
"""Cells of the bar that shows an uncertainty of 1."""


def show(path: ExitPath, console: Console) -> None:
    """Print the text and one row a layer; colour is the console's to give or not (NO_COLOR, a pipe)."""
    with console.capture() as lines:
        console.print(rendered(path, unicode=console.encoding.startswith("utf")), soft_wrap=not console.is_terminal)
    for line in lines.get().splitlines():
        print(line.rstrip())


def rendered(path: ExitPath, *, unicode: bool = True) -> Group:
    """The text, a table and an empty line. Layers that do not run are dim.

    Args:
      unicode: whether bars may be of block characters.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in ("layer", "answer", "probability", "uncertainty", ""):
        table.add_column(header, justify="right" if header in ("layer", "probability") else "left", no_wrap=True)
    for exit_ in path.exits:
        runs = exit_.layer <= path.exit_layer
        table.add_row(
            str(exit_.layer),
            printable(exit_.label),
            f"{exit_.probability:.1%}",
            _uncertainty(exit_, unicode=unicode) if exit_.asked else "not asked",
            _what_happens(exit_, path),
            style="" if runs else "dim",
        )
    texts = [path.text] if path.pair is None else [path.text, path.pair]
    return Group(*(Text(printable(text), style="bold") for text in texts), table, Text())


def printable(text: str) -> str:
    """The same on one line, and without characters that would command a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def _uncertainty(exit_: ExitAnswer, *, unicode: bool) -> Text:
    full, empty = ("█", "░") if unicode else ("#", ".")
    cells = round(exit_.uncertainty * BAR)
    sure = exit_.uncertainty < exit_.threshold
    return Text.assemble(
        f"{exit_.uncertainty:.3f} ", (full * cells, "green" if sure else "yellow"), (empty * (BAR - cells), "dim")
    )


def _what_happens(exit_: ExitAnswer, path: ExitPath) -> Text:
    if exit_.layer < path.exit_layer:
        return Text("goes on")
    if exit_.layer > path.exit_layer:
        return Text("not run")
    last = exit_.layer == len(path.exits)
    why = "the last layer" if last else f"below {exit_.threshold:.4g}"
    return Text(f"leaves: {why}", style="bold green")
