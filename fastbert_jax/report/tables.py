"""Plain-text tables: aligned columns that read well in a terminal and in a log."""

from __future__ import annotations

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lines of text, the first column to the left, the others to the right, a rule under the header.

    Raises:
      ValueError: a row of another width than the header.
    """
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"expected {len(header)} cells, found {len(row)}: {row}")
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = (f"{cell:{'>' if i else '<'}{width}}" for i, (cell, width) in enumerate(zip(cells, widths)))
        return "  ".join([first, *others]).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])
