"""Plain-text tables."""

from __future__ import annotations

import pytest

from fastbert_jax.report.plain_table import table


def test_columns_line_up_names_left_numbers_right() -> None:
    assert table(("mode", "x"), [("a", "1.5"), ("longer", "10.25")]).split("\n") == [
        "mode        x",
        "------  -----",
        "a         1.5",
        "longer  10.25",
    ]


def test_empty_cells_leave_no_blanks_at_the_end() -> None:
    assert table(("mode", "x"), [("a", "")]).split("\n")[-1] == "a"


def test_a_row_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 2 cells, found 1"):
        table(("mode", "x"), [("a",)])
