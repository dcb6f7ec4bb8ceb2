"""Which character separates the columns is seen in the first lines; two that both fit are an error."""

from __future__ import annotations

import pytest

from fastbert_jax.config import DataConfig, Delimiter
from fastbert_jax.errors import UserError
from fastbert_jax.text import readers
from fastbert_jax.text.sources import read_examples
from tests.text.corpora import open_only, values_of

CHARACTERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


@pytest.mark.parametrize(("name", "character"), CHARACTERS.items())
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_csv_file_of_any_delimiter(tmp_path, name, character, end):
    """Quotes hold delimiters and line ends, other texts hold all other delimiters, the header is no plain English."""
    others = " ".join(set(CHARACTERS.values()) - {character})
    rows = [('"Größe"', "Käufer urteilt"), (f'"a {character} ""b""{end}c"', "gut"), (f"x {others} y", "schlecht")]
    content = "".join(character.join(row) + end for row in rows)
    path = write(tmp_path / "a.csv", b"\xef\xbb\xbf" + content.encode())
    assert open_only(path).columns == ("Größe", "Käufer urteilt")
    assert values_of(path) == [(f'a {character} "b"{end}c', "gut"), (f"x {others} y", "schlecht")]
    assert open_only(path).name == (str(path) if name == "comma" else f"{path} ({name}s between its columns)")


def test_rows_count_more_than_the_header(tmp_path):
    path = write(tmp_path / "a.csv", "Text, oder was, oder wie;Label\ngut;1\nschlecht;0\nnoch;zu;viel\n")
    assert open_only(path).columns == ("Text, oder was, oder wie", "Label")


def test_a_coin_toss_is_refused_and_can_be_settled(tmp_path):
    path = write(tmp_path / "a.csv", "text,label;more\na,1;x\n")
    with pytest.raises(
        UserError, match=r"a\.csv:1: expected one character .*, found that comma and semicolon fit .*; "
    ):
        open_only(path)
    with pytest.raises(UserError, match=r"name it: --delimiter comma \(train: --data\.delimiter comma\)"):
        open_only(path)
    assert values_of(path, delimiter=Delimiter.SEMICOLON) == [("a,1", "x")]
    loaded = read_examples(str(path), DataConfig(delimiter=Delimiter.COMMA, label_column="label;more"), need_label=True)
    assert [(example.text, example.label) for example in loaded.examples] == [("a", "1;x")]


def test_a_quote_that_is_open_in_the_first_lines_is_told_by_reading(tmp_path):
    path = write(tmp_path / "a.csv", 'text;label\na;1\n"b;1\nc;2\n')
    with pytest.raises(UserError, match=r"a\.csv:3: expected a closing quote, found none .* close the quote"):
        values_of(path, delimiter=Delimiter.AUTO)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            "K\xe4ufer;Urteil".encode("latin-1"),
            r"a\.csv:1: expected UTF-8, found the byte 0xe4 at .* a column's name; save",
        ),
        (b'"a"b,c', r"a\.csv:1: expected a line with the names .*: expected quotes around whole fields, found"),
    ],
)
def test_a_header_that_cannot_be_read(tmp_path, header, message):
    with pytest.raises(UserError, match=message):
        open_only(write(tmp_path / "a.csv", header + b"\na;b\n"))


LONG = "ab " * (10 * 2**20 // 3)


@pytest.mark.parametrize("ending", [".tsv", ".csv", ".jsonl", ".txt"])
def test_a_line_of_ten_megabytes_and_a_nul_are_text(tmp_path, ending):
    texts = [LONG, "a\x00b"]
    made = {
        ".tsv": "text\n{}\n{}\n",
        ".csv": 'text\n"{}"\n{}\n',
        ".jsonl": '{{"text": "{}"}}\n{{"text": "{}"}}\n',
        ".txt": "{}\n{}\n",
    }
    escaped = [LONG, "a\\u0000b" if ending == ".jsonl" else "a\x00b"]
    path = write(tmp_path / f"a{ending}", made[ending].format(*escaped))
    assert [row for (row,) in values_of(path)] == texts


@pytest.mark.parametrize("ending", [".tsv", ".csv", ".jsonl", ".txt"])
def test_a_line_without_an_end_is_refused_and_not_held(tmp_path, ending, monkeypatch):
    """Such a file, compressed, may be of a few bytes."""
    monkeypatch.setattr(readers, "LONGEST_LINE", 100)
    first = '{"text": "a"}\n' if ending == ".jsonl" else "text\n"
    path = write(tmp_path / f"a{ending}", first + "a" * 101 + "\n")
    with pytest.raises(
        UserError, match=r"a\.[a-z]+:2: expected lines of at most 100 characters, found a longer one; cut it"
    ):
        values_of(path)


def test_a_field_of_many_lines_is_bounded_too(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "LONGEST_LINE", 100)
    path = write(tmp_path / "a.csv", 'text,label\n"' + "aaa\n" * 26 + '",1\nb,2\n')
    with pytest.raises(
        UserError, match=r"a\.csv:2: expected fields of at most 100 characters, found a longer one; look"
    ):
        values_of(path)
