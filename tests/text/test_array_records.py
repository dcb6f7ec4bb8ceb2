"""ArrayRecord files of texts and of JSON objects."""

from __future__ import annotations

import json

import fsspec
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from fastbert_jax.errors import UserError
from fastbert_jax.text.array_records import is_array_record
from fastbert_jax.text.examples import Unreadable
from fastbert_jax.text.files import open_file


def write(path, records):
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()
    return path


def values(table, *columns):
    return [row.values for row in table.rows(columns)]


def test_names_of_array_record_files():
    for name in ("a.arrayrecord", "gs://b/a.array_record", "imdb-train.array_record-00000-of-00004"):
        assert is_array_record(name)
    assert not is_array_record("arrayrecord.txt")


def test_records_may_be_texts(tmp_path):
    table = open_file(write(tmp_path / "a.arrayrecord", [b"oil", b"[1]"]))
    assert table.columns == ("text",) and "a text in each record" in table.name
    assert values(table, "text") == [("oil",), ("[1]",)]
    assert [row.where for row in table.rows(("text",))] == [f"{tmp_path}/a.arrayrecord:{n}" for n in (1, 2)]


def test_texts_that_are_no_utf8_are_kept_as_surrogates(tmp_path):
    table = open_file(write(tmp_path / "a.arrayrecord", ["中文".encode(), b"b\xff"]))
    assert values(table, "text") == [("中文",), ("b\udcff",)]


def test_records_may_be_objects(tmp_path):
    records = [json.dumps({"id": 1, "text": "oil"}), json.dumps({"text": None, "label": 2}), "no object"]
    table = open_file(write(tmp_path / "a.array_record-00000-of-00001", [record.encode() for record in records]))
    assert table.columns == ("id", "text", "label") and table.text_columns == ("text",)
    assert "a JSON object in each record" in table.name
    first, second, bad = table.rows(("text", "label"))
    assert (first.values, second.values) == (("oil", None), (None, 2))
    assert isinstance(bad, Unreadable) and bad.where.endswith(":3")
    assert bad.problem == "expected a JSON object, as the first record is, found b'no object'"


def test_a_remote_file_is_read_through_a_copy(tmp_path):
    path = write(tmp_path / "a.arrayrecord", [b"oil"] * 3000)
    with fsspec.open("memory://records/a.arrayrecord", "wb") as stream:
        stream.write(path.read_bytes())
    assert values(open_file("memory://records/a.arrayrecord"), "text") == [("oil",)] * 3000


def test_damaged_files_are_named(tmp_path):
    path = write(tmp_path / "a.arrayrecord", [b"%d" % number * 50 for number in range(5000)])
    content = path.read_bytes()
    for broken, match in [
        (b"", "found one that is cut short"),
        (content[: len(content) // 2], "found one that is cut short"),
        (content[:300] + b"\0\0\0" + content[303:], "found a damaged one"),
    ]:
        path.write_bytes(broken)
        with pytest.raises(UserError, match=rf"a.arrayrecord: expected an ArrayRecord file, {match}.*; copy it again"):
            values(open_file(path), "text")
    with pytest.raises(UserError, match="expected a file, found nothing at .*none.arrayrecord"):
        open_file(tmp_path / "none.arrayrecord")
    with pytest.raises(UserError, match=r"b.arrayrecord: expected records, found none"):
        open_file(write(tmp_path / "b.arrayrecord", []))
