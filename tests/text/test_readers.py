"""Readers of files: what they read, and what they say of files that cannot be read."""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastbert_jax.errors import UserError
from fastbert_jax.text.examples import Unreadable
from fastbert_jax.text.readers import open_lines, open_table
from tests.text.corpora import open_only, rows_of, values_of


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def test_tsv_takes_quotes_as_they_are_and_keeps_other_line_separators(tmp_path):
    path = write(tmp_path / "a.tsv", 'label\ttext\npos\t"good" \u2028 \x0b one\r\nneg\t\n')
    assert values_of(path) == [("pos", '"good" \u2028 \x0b one'), ("neg", "")]
    assert [row.where for row in rows_of(path)] == [f"{path}:2", f"{path}:3"]


@pytest.mark.parametrize("ending", [".tsv", ".csv", ".jsonl", ".txt"])
def test_a_byte_order_mark_is_no_part_of_the_first_value(tmp_path, ending):
    content = '{"text": "a"}\n' if ending == ".jsonl" else "a\n" if ending == ".txt" else "text\na\n"
    path = write(tmp_path / f"a{ending}", b"\xef\xbb\xbf" + content.encode())
    assert values_of(path, "text") == [("a",)]


def test_csv_reads_quotes_line_breaks_and_long_fields(tmp_path):
    long = "x" * 200_000
    path = write(tmp_path / "a.csv", f'text,label\r\n"a, ""b""\nc",pos\r\n{long},neg\r\n')
    rows = rows_of(path)
    assert [row.values for row in rows] == [('a, "b"\nc', "pos"), (long, "neg")]
    assert [row.where for row in rows] == [f"{path}:2", f"{path}:4"]


def test_csv_with_semicolons_is_found_by_its_header(tmp_path):
    assert values_of(write(tmp_path / "a.csv", '"text";label\n"a, b, c";1\n')) == [("a, b, c", "1")]


def test_a_bad_csv_row_keeps_its_place_and_the_next_one_is_read(tmp_path):
    path = write(tmp_path / "a.csv", 'text,label\n"a"b,1\nc,2\nd\ne,3\n')
    first, good, ragged, last = rows_of(path)
    assert (
        isinstance(first, Unreadable) and first.where == f"{path}:2" and "quotes around whole fields" in first.problem
    )
    assert good.values == ("c", "2") and last.values == ("e", "3")
    assert ragged == Unreadable(f"{path}:4", "expected 2 columns, found 1")


def test_a_quote_that_never_closes_stops_the_reading(tmp_path):
    path = write(tmp_path / "a.csv", 'text,label\na,1\n"b,1\nc,2\n')
    with pytest.raises(UserError, match=r"a\.csv:3: expected a closing quote, found none .* close the quote"):
        rows_of(path)


def test_ragged_tsv_rows_come_with_line_and_count(tmp_path):
    path = write(tmp_path / "a.tsv", "label\ttext\npos\n\npos\ta\tb\nneg\tc")
    problems = [row for row in rows_of(path) if isinstance(row, Unreadable)]
    assert problems == [
        Unreadable(f"{path}:2", "expected 2 columns, found 1"),
        Unreadable(f"{path}:4", "expected 2 columns, found 3"),
    ]
    assert rows_of(path)[-1].values == ("neg", "c")


def test_an_empty_line_is_an_empty_text_where_text_is_all_there_is(tmp_path):
    assert values_of(write(tmp_path / "a.txt", "a\n\nb\n")) == [("a",), ("",), ("b",)]
    assert values_of(write(tmp_path / "a.tsv", "text\na\n\nb")) == [("a",), ("",), ("b",)]


def test_lines_of_a_stream_count_from_one():
    rows = list(open_lines(io.BytesIO("a\r\n\n中文".encode()), "stdin").rows(("text",)))
    assert [(row.where, row.values["text"]) for row in rows] == [
        ("stdin:1", "a"),
        ("stdin:2", ""),
        ("stdin:3", "中文"),
    ]


def test_jsonl_columns_come_from_all_of_the_first_lines(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "a"}\n\n{"text": "b", "label": 1}\n')
    assert open_only(path).columns == ("text", "label")
    assert open_only(path).text_columns == ("text",)
    assert values_of(path, "label", "text") == [(None, "a"), (1, "b")]


def test_bad_jsonl_lines_keep_their_place(tmp_path):
    deep = "[" * 100_000
    path = write(tmp_path / "a.jsonl", '{"text": "a"}\n{"text": \n[1]\n' + deep + '\n{"text": "b"}\n')
    rows = rows_of(path)
    assert [getattr(row, "problem", "")[:22] for row in rows] == ["", *["expected a JSON object"] * 3, ""]
    assert [row.where.rpartition(":")[2] for row in rows] == ["1", "2", "3", "4", "5"]


def test_a_jsonl_file_without_an_object_says_what_its_first_line_is(tmp_path):
    path = write(tmp_path / "a.jsonl", '["a"]\n')
    with pytest.raises(UserError, match=r"a\.jsonl:1: expected a JSON object, found .* one JSON object a line"):
        open_only(path)
    with pytest.raises(UserError, match=r"found no objects"):
        open_only(write(tmp_path / "b.jsonl", "\n\n"))


def test_parquet_rows_are_numbered_and_hold_plain_values(tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.table({"text": pa.array(["a", None]).dictionary_encode(), "label": [1, 2], "raw": [b"x", b"y"]})
    pq.write_table(table, path)
    rows = rows_of(path, "label", "text", "raw")
    assert [(row.where, row.values) for row in rows] == [(f"{path}:1", (1, "a", "x")), (f"{path}:2", (2, None, "y"))]
    assert open_only(path).text_columns == ("text",)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_a_parquet_string_that_is_no_utf8_is_kept_as_surrogates(tmp_path, kind):
    path = tmp_path / "a.parquet"
    raw = pa.array([b"good", b"b\xffd"], pa.binary() if kind == pa.string() else pa.large_binary())
    pq.write_table(pa.table({"text": raw.view(kind)}), path)
    assert values_of(path) == [("good",), ("b\udcffd",)]


@pytest.mark.parametrize("keep", [6, 0.5])
def test_a_cut_parquet_file_is_named(tmp_path, keep):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a"] * 100}), path)
    content = path.read_bytes()
    path.write_bytes(content[: keep if keep > 1 else int(len(content) * keep)])
    with pytest.raises(UserError, match=r"a\.parquet: expected a Parquet file, found a damaged one .*; copy it again"):
        rows_of(path)


def test_a_parquet_file_damaged_inside_is_named(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"text number {i}" for i in range(5000)]}), path, use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.parquet: expected a Parquet file, found a damaged one"):
        rows_of(path)


def test_files_that_are_none(tmp_path):
    with pytest.raises(UserError, match=r"expected a file, found nothing at .*no\.tsv; check the path"):
        open_only(tmp_path / "no.tsv")
    with pytest.raises(UserError, match=r"expected a file ending in \.tsv, \.csv, .*, found '.*a\.doc'"):
        open_only(write(tmp_path / "a.doc", "text\n"))
    (tmp_path / "d.tsv").mkdir()
    with pytest.raises(UserError, match=r"expected a file, found a directory at"):
        open_only(tmp_path / "d.tsv")
    no_names = "expected a line with the names of the columns, found none"
    messages = {".tsv": no_names, ".csv": no_names, ".jsonl": "found no objects", ".parquet": "found a damaged one"}
    for ending, message in messages.items():
        for content in (b"", b"\xef\xbb\xbf"):
            with pytest.raises(UserError, match=message):
                open_only(write(tmp_path / f"empty{ending}", content))
    with pytest.raises(UserError, match=r"c\.tsv:1: expected each column once, found 'text' twice"):
        open_only(write(tmp_path / "c.tsv", "text\ttext\na\tb\n"))
    with pytest.raises(UserError, match=r"d\.csv:1: expected a line with the names of the columns, found none"):
        open_only(write(tmp_path / "d.csv", "\ntext\n"))


def test_a_file_is_read_as_it_is_asked_for(tmp_path):
    path = write(tmp_path / "a.jsonl", "".join(json.dumps({"text": str(i)}) + "\n" for i in range(1000)) + '{"text"')
    with open_table(path) as table:
        rows = table.rows(("text",))
        assert next(rows).values == {"text": "0"}
        assert sum(isinstance(row, Unreadable) for row in rows) == 1


def test_a_large_row_group_is_read_in_small_pieces(tmp_path):
    generator = random.Random(0)
    texts = [generator.randbytes(300).hex() for _ in range(50_000)]
    table = pa.table({"text": texts})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=len(texts), use_dictionary=False)
    del table
    source = (
        "import sys, pyarrow as pa\nfrom fastbert_jax.text.readers import open_table\n"
        "with open_table(sys.argv[1]) as table:\n    rows = sum(1 for _ in table.rows(('text',)))\n"
        "print(rows, pa.default_memory_pool().max_memory())"
    )
    command = [sys.executable, "-c", source, str(tmp_path / "a.parquet")]
    rows, memory = map(int, subprocess.run(command, capture_output=True, check=True).stdout.split())
    assert rows == len(texts) and memory < 0.5 * sum(map(len, texts))
