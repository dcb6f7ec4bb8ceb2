"""Columns of unknown names are recognised by their content; an ambiguous choice is refused."""

from __future__ import annotations

import pytest

from fastbert_jax.config import DataConfig
from fastbert_jax.errors import UserError
from fastbert_jax.text.columns import Columns, find_columns
from fastbert_jax.text.examples import Unreadable
from fastbert_jax.text.sources import read_examples
from fastbert_jax.text.tables import Row, Table

ROWS = 12
COLUMNS = {
    "Nr": range(ROWS),
    "Betreff": [f"Anfrage {i}" for i in range(ROWS)],
    "Aussage": [f"Das ist ein recht langer Satz mit der Nummer {i}" for i in range(ROWS)],
    "Antwort": [f"Darauf kommt eine ebenso lange Antwort Nummer {i}" for i in range(ROWS)],
    "Urteil": ["gut", "schlecht"] * (ROWS // 2),
    "Sterne": [1, 2, 3, 4, 5, 5] * (ROWS // 6),
    "Preis": ["1.5", "2.75"] * (ROWS // 2),
    "Land": ["DE"] * ROWS,
    "Marken": [["a", "b"]] * ROWS,
    "Luecken": ["", None, "  "] * (ROWS // 3),
}


def table(*columns, more=(), values=COLUMNS):
    def rows(wanted):
        yield from more
        for row in zip(*(values[name] for name in wanted), strict=True):
            yield Row("a.csv:2", dict(zip(wanted, row, strict=True)))

    texts = tuple(name for name in columns if any(isinstance(value, str) for value in values[name]))
    return Table("a.csv", columns, rows, text_columns=texts, has_header=True)


def find(*columns, need_label=True, **settings):
    return find_columns(table(*columns), DataConfig(**settings), need_label=need_label)


def test_the_longest_texts_and_the_few_values():
    everything_else = ("Nr", "Betreff", "Aussage", "Urteil", "Preis", "Land", "Marken", "Luecken")
    found = find(*everything_else)
    assert found == Columns(("Aussage",), None, "Urteil") and found.guessed == ("Aussage", "Urteil")
    assert find("Aussage", "Sterne").label == "Sterne"
    assert find("Nr", "Aussage", "Betreff", need_label=False) == Columns(("Aussage",), None, None)


def test_names_and_settings_come_before_contents():
    found = find("Betreff", "Aussage", "Urteil", "Sterne", text_column="Betreff", label_column="Sterne")
    assert found == Columns(("Betreff",), None, "Sterne") and found.guessed == ()
    named = table("text", "Aussage", "Urteil", values=COLUMNS | {"text": COLUMNS["Betreff"]})
    assert find_columns(named, DataConfig(), need_label=True) == Columns(("text",), None, "Urteil")
    assert find_columns(named, DataConfig(), need_label=True).guessed == ("Urteil",)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            ("Aussage", "Antwort", "Urteil"),
            r"a\.csv: expected one column with the longest texts, found 'Aussage' \(46 characters on average\) and "
            r"'Antwort' \(47 characters on average\); name it: --text-column or --pair-column \(train: --data\.text",
        ),
        (
            ("Aussage", "Urteil", "Sterne"),
            r"expected one column with few different values, found 'Urteil' \(2 values\) and 'Sterne' \(5 values\); "
            r"name it: --label-column \(train: --data\.label-column\)",
        ),
        (("Aussage", "Preis", "Land"), r"expected a label column, found the columns 'Aussage', 'Preis', 'Land'; name"),
        (("Nr", "Sterne"), r"expected a text column, found the columns 'Nr', 'Sterne'; name it"),
    ],
)
def test_a_coin_toss_is_refused_with_its_candidates(columns, message):
    with pytest.raises(UserError, match=message):
        find(*columns)


def test_rows_that_cannot_be_read_say_nothing():
    bad = [Unreadable("a.csv:2", "expected 2 columns, found 3")] * 5
    assert find_columns(table("Aussage", "Urteil", more=bad), DataConfig(), need_label=True).label == "Urteil"


@pytest.mark.parametrize("names", [("Das ist ein recht langer Satz", "gut"), ("Ein Satz" * 9, "Urteil")])
def test_a_file_without_names_of_columns_is_refused(names):
    values = dict(zip(names, (COLUMNS["Aussage"], COLUMNS["Urteil"]), strict=True))
    with pytest.raises(UserError, match=r"expected the names of the columns in the first line, found .* like a row"):
        find_columns(table(*names, values=values), DataConfig(), need_label=True)


@pytest.mark.parametrize(
    "rows",
    [
        ["a fine film", "poor plot", "fine cast"],
        ["fine film", "poor film", "a fine cast"],
        ["这部电影很好看", "那个电影不好看", "电影"],
        ["a fine film,pos", "poor plot,neg", "fine cast,pos"],
        ["a1,the film was fine", "a2,poor plot", "a3,fine cast"],
    ],
)
def test_a_header_that_is_a_text_costs_no_row_silently(tmp_path, rows):
    path = tmp_path / "a.csv"
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    with pytest.raises(UserError, match=r"in the first line, found what looks like a row .*or, if it is the name of a"):
        read_examples(str(path), DataConfig(), need_label=False)


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ("Aussage", "kurz"),
        ("评论", "那个电影不好看"),
        ("customer comment", "short and fine"),
        ("What did you like about it?", "A text that is longer than the question by more than a factor of two."),
        ("0", "pandas gives numbers as names"),
        ("comment_body", "ok"),
    ],
)
def test_a_name_is_no_text(tmp_path, header, text):
    path = tmp_path / "a.csv"
    path.write_text(f"{header}\n{text}\nanother {text}\n", encoding="utf-8")
    assert len(read_examples(str(path), DataConfig(), need_label=False).examples) == 2
    path.write_text("what is it\nshort\nshort too\n", encoding="utf-8")
    assert len(read_examples(str(path), DataConfig(text_column="what is it"), need_label=False).examples) == 2
