"""ArrayRecord files of texts and of JSON objects."""

from __future__ import annotations

import json

import fsspec
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from fastbert_jax.errors import UserError
from fastbert_jax.text.examples import Unreadable
from tests.text.corpora import open_only, rows_of, values_of


def write(path, records):
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()
    return path


def test_records_may_be_texts(tmp_path):
    path = write(tmp_path / "a.arrayrecord", [b"oil", b"[1]"])
    table = open_only(path)
    assert table.columns == ("text",) and "a text in each record" in table.name and table.row_count == 2
    assert [(row.where, row.values) for row in rows_of(path)] == [(f"{path}:1", ("oil",)), (f"{path}:2", ("[1]",))]


def test_texts_that_are_no_utf8_are_kept_as_surrogates(tmp_path):
    assert values_of(write(tmp_path / "a.arrayrecord", ["中文".encode(), b"b\xff"])) == [("中文",), ("b\udcff",)]


def test_records_may_be_objects(tmp_path):
    records = [json.dumps({"id": 1, "text": "oil"}), json.dumps({"text": None, "label": 2}), "no object"]
    path = write(tmp_path / "a.array_record-00000-of-00001", [record.encode() for record in records])
    table = open_only(path)
    assert table.columns == ("id", "text", "label") and table.text_columns == ("text",)
    assert "a JSON object in each record" in table.name
    first, second, bad = rows_of(path, "text", "label")
    assert (first.values, second.values) == (("oil", None), (None, 2))
    assert isinstance(bad, Unreadable) and bad.where.endswith(":3")
    assert bad.problem.startswith("expected a JSON object, found ")


def test_a_remote_file_is_read_through_a_copy(tmp_path):
    path = write(tmp_path / "a.arrayrecord", [b"oil"] * 3000)
    with fsspec.open("memory://records/a.arrayrecord", "wb") as stream:
        stream.write(path.read_bytes())
    assert values_of("memory://records/a.arrayrecord") == [("oil",)] * 3000


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
            values_of(path)
    with pytest.raises(UserError, match="expected a file, found nothing at .*none.arrayrecord"):
        open_only(tmp_path / "none.arrayrecord")
    with pytest.raises(UserError, match=r"b.arrayrecord: expected records, found none"):
        open_only(write(tmp_path / "b.arrayrecord", []))
